//! How much more may be loaded?
//!
//! No library that was opened is ever closed, and calls that don't end hold what they were admitted to: so what a process has grows with
//! its swaps, until the system says no in the middle of something else. Before that a swap is refused; nothing that serves is given up.
//!
//! Of what the system allows a part is kept back: for connections, threads and memory of what serves. Nothing here asks the system.

use std::fmt;

use serde::Serialize;

/// Mapped areas that one more library may take: four or five for itself, and for a moment the stacks of the threads that start it and the
/// memory that they ask for.
const MAPS: u64 = 12;

/// What a swap has open at its height: the artifact, its copy, the wires to a probe.
const DESCRIPTORS: u64 = 16;

/// What there is, and what there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// What is in use.
    pub used: u64,
    /// What swaps may use, as far as that is known.
    pub limit: Option<u64>,
}

/// What swaps may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Libraries that were opened.
    pub libraries: Share,
    /// Mapped areas of the process.
    pub maps: Share,
    /// Open descriptors of the process.
    pub descriptors: Share,
    /// Bytes of private copies on disk.
    pub bytes: Share,
}

/// What the process has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Libraries that were opened.
    pub libraries: u64,
    /// Mapped areas.
    pub maps: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Bytes of private copies on disk.
    pub bytes: u64,
}

/// What the operator and the system allow; `None` where it isn't known or there is no end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed {
    /// Libraries, as the operator says.
    pub libraries: Option<u64>,
    /// `vm.max_map_count`.
    pub maps: Option<u64>,
    /// The soft limit of open files, as it was at the start.
    pub descriptors: Option<u64>,
    /// What is free of the disk that private copies are on, in bytes.
    pub disk: Option<u64>,
}

/// What one swap too many would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Libraries: these, and so many more, of so many.
    Libraries(u64, u64, u64),
    /// Mapped areas: these, of so many.
    Maps(u64, u64),
    /// Descriptors: these, of so many.
    Descriptors(u64, u64),
}

impl Budget {
    /// What of `allowed` swaps may use: nine parts in ten of what they share with what serves, and the whole disk.
    #[must_use]
    pub(crate) fn of(used: Used, allowed: Allowed) -> Self {
        let most = |all: u64| all - all / 10;
        let disk = allowed.disk.map(|free| used.bytes.saturating_add(free));
        Self {
            libraries: Share { used: used.libraries, limit: allowed.libraries },
            maps: Share { used: used.maps, limit: allowed.maps.map(most) },
            descriptors: Share { used: used.descriptors, limit: allowed.descriptors.map(most) },
            bytes: Share { used: used.bytes, limit: disk },
        }
    }

    /// What so many more libraries would exceed. Their copies are on the disk already: that it is full was said where they were made.
    #[must_use]
    pub(crate) fn over(&self, libraries: u64) -> Option<Over> {
        let exceeds = |share: Share, more: u64| share.limit.filter(|limit| share.used.saturating_add(more) > *limit);
        let Self { libraries: opened, maps, descriptors, .. } = *self;
        let of_libraries = exceeds(opened, libraries).map(|limit| Over::Libraries(opened.used, libraries, limit));
        let of_maps = || exceeds(maps, libraries.saturating_mul(MAPS)).map(|limit| Over::Maps(maps.used, limit));
        let of_descriptors = || exceeds(descriptors, DESCRIPTORS).map(|limit| Over::Descriptors(descriptors.used, limit));
        of_libraries.or_else(of_maps).or_else(of_descriptors)
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Libraries(used, more, limit) => {
                write!(f, "{used} of at most {limit} libraries are open, and it takes {more} more (--most-libraries)")
            }
            Self::Maps(used, limit) => {
                write!(
                    f,
                    "the process has {used} mapped areas, and swaps may take them to {limit} (nine tenths of vm.max_map_count)"
                )
            }
            Self::Descriptors(used, limit) => write!(
                f,
                "the process has {used} descriptors open, and swaps may take them to {limit} (nine tenths of the limit of open files)"
            ),
        }
    }
}

impl Over {
    /// What one does about it. `blocker` is the call that holds replaced code for the longest time, in words.
    #[must_use]
    pub(crate) fn help(&self, blocker: Option<&str>) -> String {
        let first = match self {
            Self::Libraries(..) => "restart the host when it suits, since no library is closed before that, or allow more",
            Self::Maps(..) => "restart the host when it suits, since no library is closed before that, or raise vm.max_map_count",
            Self::Descriptors(..) => {
                "wait until there are fewer connections, or restart the host with a higher limit of open files"
            }
        };
        match blocker {
            Some(blocker) => format!("{first}; what holds replaced code for the longest time is {blocker}"),
            None => first.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const ALLOWED: Allowed = Allowed { libraries: Some(3), maps: Some(1000), descriptors: Some(100), disk: Some(5_000) };

    fn check(used: Used, more: u64, expected: &Expect) {
        let over = Budget::of(used, ALLOWED).over(more);
        expected.assert_eq(&over.map_or_else(|| "goes on".to_owned(), |over| format!("{over}\n{}", over.help(None))));
    }

    #[test]
    fn what_fits_goes_on_up_to_the_last_one() {
        let full = Used { libraries: 2, maps: 900 - MAPS, descriptors: 90 - DESCRIPTORS, bytes: 1 << 40 };
        check(full, 1, &expect!["goes on"]);
        check(Used::default(), 3, &expect!["goes on"]);
    }

    #[test]
    fn each_limit_is_named_with_what_to_do() {
        check(
            Used { libraries: 2, ..Used::default() },
            2,
            &expect![[r#"
                2 of at most 3 libraries are open, and it takes 2 more (--most-libraries)
                restart the host when it suits, since no library is closed before that, or allow more"#]],
        );
        check(
            Used { maps: 901 - MAPS, ..Used::default() },
            1,
            &expect![[r#"
                the process has 889 mapped areas, and swaps may take them to 900 (nine tenths of vm.max_map_count)
                restart the host when it suits, since no library is closed before that, or raise vm.max_map_count"#]],
        );
        check(
            Used { descriptors: 91 - DESCRIPTORS, ..Used::default() },
            1,
            &expect![[r#"
                the process has 75 descriptors open, and swaps may take them to 90 (nine tenths of the limit of open files)
                wait until there are fewer connections, or restart the host with a higher limit of open files"#]],
        );
    }

    #[test]
    fn a_disk_has_room_for_what_is_there_and_what_is_free() {
        let used = Used { bytes: 4_000, ..Used::default() };
        let full = Budget::of(used, Allowed { disk: Some(0), ..Allowed::default() });
        assert_eq!((full.bytes, full.over(1)), (Share { used: 4_000, limit: Some(4_000) }, None), "the copy is there already");
    }

    #[test]
    fn what_is_not_known_limits_nothing_and_the_oldest_blocker_is_named() {
        let used = Used { libraries: u64::MAX, maps: u64::MAX, descriptors: u64::MAX, bytes: u64::MAX };
        assert_eq!(Budget::of(used, Allowed::default()).over(u64::MAX), None);
        let help = Over::Libraries(3, 1, 3).help(Some("shop=1 wait, lease 7, for 61.2 s"));
        assert!(help.ends_with("what holds replaced code for the longest time is shop=1 wait, lease 7, for 61.2 s"), "{help}");
    }
}
