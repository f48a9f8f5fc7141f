//! What was refused, and with whom is it tried again?
//!
//! Plugins refused together may need each other, as after one edit of a crate that they share: none of them went live, and the change
//! that mends one has to bring the others along. Plugins refused apart have nothing to do with each other: a bad one must not keep the
//! good ones from going live. So both loops remember who was refused with whom, and nothing else.

use std::collections::BTreeSet;

/// Groups of what was refused together. No member is in two of them.
#[derive(Clone, Debug)]
pub(crate) struct Groups<T>(Vec<BTreeSet<T>>);

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord + Clone> Groups<T> {
    /// These were refused together, and so with the groups that any of them is in.
    pub(crate) fn refuse(&mut self, refused: &BTreeSet<T>) {
        let together = self.with(refused);
        self.settle(refused);
        self.0.extend((!together.is_empty()).then_some(together));
    }

    /// These and the groups that any of them is in.
    pub(crate) fn with(&self, changed: &BTreeSet<T>) -> BTreeSet<T> {
        // One pass is enough: as no member is in two groups, a group that comes along brings no other.
        let along = self.0.iter().filter(|group| !group.is_disjoint(changed));
        along.flatten().chain(changed).cloned().collect()
    }

    /// These are live: the groups that any of them is in are over.
    pub(crate) fn settle(&mut self, live: &BTreeSet<T>) {
        self.0.retain(|group| group.is_disjoint(live));
    }

    /// All that was refused and isn't over.
    pub(crate) fn members(&self) -> BTreeSet<T> {
        self.0.iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `x ab` refuses `a` and `b` together, `v ab` lets them go live.
    fn check(story: &str, along: &[(&str, &str)]) {
        let set = |text: &str| text.chars().collect::<BTreeSet<char>>();
        let mut groups = Groups::default();
        for step in story.split(", ").filter(|step| !step.is_empty()) {
            match step.split_once(' ').expect("what and whom") {
                ("x", refused) => groups.refuse(&set(refused)),
                (_, live) => groups.settle(&set(live)),
            }
        }
        for (changed, expected) in along {
            assert_eq!(groups.with(&set(changed)), set(expected), "{story}: {changed}");
        }
    }

    #[test]
    fn what_was_refused_alone_goes_along_with_nobody() {
        check("", &[("a", "a"), ("", "")]);
        check("x a", &[("a", "a"), ("b", "b"), ("ab", "ab")]);
        check("x a, x b", &[("a", "a"), ("b", "b")]);
    }

    #[test]
    fn what_was_refused_together_is_tried_together() {
        check("x ab", &[("a", "ab"), ("b", "ab"), ("c", "c"), ("bc", "abc")]);
        check("x ab, x cd", &[("a", "ab"), ("d", "cd"), ("ad", "abcd"), ("e", "e")]);
    }

    #[test]
    fn groups_that_share_a_member_are_one() {
        check("x ab, x bc", &[("a", "abc"), ("c", "abc")]);
        check("x ab, x cd, x bc, x e", &[("a", "abcd"), ("d", "abcd"), ("e", "e")]);
    }

    #[test]
    fn what_went_live_is_owed_no_more() {
        check("x ab, v ab", &[("a", "a"), ("b", "b")]);
        check("x ab, x c, v ab", &[("a", "a"), ("c", "c")]);
        check("x ab, v c", &[("a", "ab")]);
        check("x ab, v b", &[("a", "a")]);
    }

    #[test]
    fn the_members_of_all_groups_are_what_isn_t_live() {
        let mut groups = Groups::default();
        groups.refuse(&BTreeSet::from([1, 2]));
        groups.refuse(&BTreeSet::from([4]));
        groups.refuse(&BTreeSet::new());
        assert_eq!((groups.members(), groups.0.len()), (BTreeSet::from([1, 2, 4]), 2));
    }
}
