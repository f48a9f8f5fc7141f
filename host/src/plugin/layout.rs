//! Which type at the border differs?
//!
//! abi_stable compares the layouts with fresh globals each time, since its process-wide checker keeps pointers into plugins. What it
//! prints is hundreds of lines; the reader needs the innermost type and field.
//!
//! abi_stable asks one way: may code that was compiled against the interface use the implementation? A prefix type of the interface may have
//! fewer fields than that of the implementation, never more. Whether plugin or host is the newer one isn't known here, so it is asked both
//! ways, and one yes is enough: a field that one side lacks is an option to the other, or isn't called.

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{
    AbiInstability, AbiInstabilityError, AbiInstabilityErrors, CheckingGlobals, check_layout_compatibility_with_globals,
};
use abi_stable::library::LibHeader;
use abi_stable::type_layout::{TLFieldOrFunction, TypeLayout};
use midair_abi::RootRef;

/// Compares the library's root with the host's.
///
/// # Errors
///
/// The type and field that differ and both forms, in one line. No pointer into the library is kept.
pub(crate) fn check(header: &LibHeader) -> Result<(), String> {
    let Some(theirs) = header.layout() else {
        return Err("it was exported without its layout".to_owned());
    };
    compare(<RootRef as StableAbi>::LAYOUT, theirs)
}

/// Whether one of the two is the other, or the other with fields appended to its prefix types.
fn compare(ours: &'static TypeLayout, theirs: &'static TypeLayout) -> Result<(), String> {
    let fits =
        |interface, implementation| check_layout_compatibility_with_globals(interface, implementation, &CheckingGlobals::new());
    let Err(with_theirs) = fits(ours, theirs) else { return Ok(()) };
    let Err(with_ours) = fits(theirs, ours) else { return Ok(()) };
    // Asked the wrong way, the fields that the newer side appended are errors too.
    let count = |errors: &AbiInstabilityErrors| errors.errors.iter().map(|error| error.errs.len()).sum::<usize>();
    Err(if count(&with_ours) < count(&with_theirs) {
        boil_down(&with_ours, Found::InHost)
    } else {
        boil_down(&with_theirs, Found::InPlugin)
    })
}

/// Whose types were found where others were expected.
#[derive(Clone, Copy)]
enum Found {
    InPlugin,
    InHost,
}

impl Found {
    /// What is in the plugin, and what in the host.
    fn sides<T>(self, expected: T, found: T) -> (T, T) {
        match self {
            Found::InPlugin => (found, expected),
            Found::InHost => (expected, found),
        }
    }
}

/// The difference that explains the others: a field of another type before a type of another size.
fn boil_down(errors: &AbiInstabilityErrors, whose: Found) -> String {
    let weight = |error: &&AbiInstabilityError| {
        let weight = |kind: &AbiInstability| match kind {
            AbiInstability::MismatchedPrimitive(_) | AbiInstability::Name(_) => 3,
            AbiInstability::UnexpectedField(_) | AbiInstability::FieldCountMismatch(_) => 2,
            AbiInstability::MismatchedPrefixSize(_) | AbiInstability::Package(_) | AbiInstability::PackageVersion(_) => 1,
            _ => 0,
        };
        error.errs.iter().map(weight).max().unwrap_or_default()
    };
    // Of several equal ones the first, so that the message is the same each time.
    let best = errors.errors.iter().rev().max_by_key(weight);
    best.map_or_else(|| "the types at the border differ".to_owned(), |error| tell(error, whose))
}

fn tell(error: &AbiInstabilityError, whose: Found) -> String {
    let trace = &error.stack_trace;
    let holder = trace.len().checked_sub(2).and_then(|at| layout_of(&trace[at].expected)).map(name_of);
    let Some(last) = trace.last() else {
        return error.errs.first().map_or_else(String::new, |kind| format!("the root differs: {}", shorten(&format!("{kind:?}"))));
    };
    let place = match (&last.expected, holder) {
        (TLFieldOrFunction::Field(field), Some(holder)) => format!("{holder}.{}", field.name()),
        (TLFieldOrFunction::Field(field), None) => field.name().to_owned(),
        (TLFieldOrFunction::Function(function), _) => format!("the function `{}`", function.name.as_str()),
    };
    for kind in &error.errs {
        match kind {
            AbiInstability::MismatchedPrimitive(_) | AbiInstability::Name(_) => {
                if let (Some(expected), Some(found)) = (layout_of(&last.expected), layout_of(&last.found)) {
                    let (theirs, ours) = whose.sides(name_of(expected), name_of(found));
                    return format!("`{place}` is {theirs} in the plugin, {ours} in the host");
                }
            }
            AbiInstability::UnexpectedField(fields) => {
                let (theirs, ours) = whose.sides(fields.expected.name(), fields.found.name());
                return match &last.expected {
                    TLFieldOrFunction::Field(field) => {
                        let holder = name_of(field.layout());
                        format!("`{holder}` has a field `{theirs}` in the plugin where the host has `{ours}`")
                    }
                    TLFieldOrFunction::Function(_) => {
                        let list = |names: &str| names.trim_end_matches(',').replace(',', ", ");
                        format!("{place} takes ({}) in the plugin, ({}) in the host", list(theirs), list(ours))
                    }
                };
            }
            AbiInstability::FieldCountMismatch(counts) => {
                let holder = layout_of(&last.expected).map_or_else(|| place.clone(), name_of);
                let (theirs, ours) = whose.sides(counts.expected, counts.found);
                return format!("`{holder}` has {theirs} fields in the plugin, {ours} in the host");
            }
            AbiInstability::PackageVersion(versions) => {
                let (theirs, ours) = whose.sides(versions.expected, versions.found);
                let package = layout_of(&last.expected).map_or("midair-abi", |layout| layout.package().as_str());
                return format!("`{place}` is of {package} {theirs} in the plugin, {ours} in the host");
            }
            _ => {}
        }
    }
    format!("{place} differs: {}", error.errs.first().map_or_else(String::new, |kind| shorten(&format!("{kind:?}"))))
}

fn layout_of(place: &TLFieldOrFunction) -> Option<&'static TypeLayout> {
    match place {
        TLFieldOrFunction::Field(field) => Some(field.layout()),
        TLFieldOrFunction::Function(_) => None,
    }
}

fn name_of(layout: &'static TypeLayout) -> String {
    shorten(&layout.full_type().to_string())
}

/// One line of it, without the walls of text that nested layouts print.
fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}..", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A border of two prefix types, one behind the other, with these fields at their ends.
    macro_rules! border {
        ($name:ident: $status:ty, root [$($root:ident)?], host [$($host:ident)?]) => {
            #[allow(dead_code, unreachable_pub, unsafe_code, reason = "only its layout is looked at; abi_stable derives calls of what may be absent")]
            mod $name {
                use abi_stable::StableAbi;

                #[repr(C)]
                #[derive(StableAbi)]
                pub struct Answer {
                    status: $status,
                }

                #[repr(C)]
                #[derive(StableAbi)]
                #[sabi(kind(Prefix(prefix_ref = HostRef)))]
                #[sabi(missing_field(option))]
                pub struct Host {
                    #[sabi(last_prefix_field)]
                    pub log: extern "C" fn(),
                    $(pub $host: extern "C" fn(),)?
                }

                #[repr(C)]
                #[derive(StableAbi)]
                #[sabi(kind(Prefix(prefix_ref = RootRef)))]
                #[sabi(missing_field(option))]
                pub struct Root {
                    #[sabi(last_prefix_field)]
                    pub init: extern "C" fn(HostRef) -> Answer,
                    $(pub $root: extern "C" fn(),)?
                }

                pub fn layout() -> &'static abi_stable::type_layout::TypeLayout {
                    <RootRef as StableAbi>::LAYOUT
                }
            }
        };
    }

    border!(first: u32, root [], host []);
    border!(root_grew: u32, root [refilter], host []);
    border!(host_grew: u32, root [], host [socket]);
    border!(both_grew: u32, root [refilter], host [socket]);
    border!(other: u64, root [], host []);
    border!(other_and_grew: u64, root [refilter], host [socket]);

    #[test]
    fn a_side_that_only_has_more_fits_whichever_it_is() {
        for grown in [root_grew::layout(), host_grew::layout(), both_grew::layout()] {
            assert_eq!(compare(grown, first::layout()), Ok(()), "an older plugin");
            assert_eq!(compare(first::layout(), grown), Ok(()), "a newer plugin");
        }
    }

    #[test]
    fn a_type_that_differs_is_named_whichever_side_has_more_beside_it() {
        let is = |theirs, ours| Err(format!("`Answer.status` is {theirs} in the plugin, {ours} in the host"));
        for (ours, theirs) in [(first::layout(), other::layout()), (both_grew::layout(), other::layout())] {
            assert_eq!(compare(ours, theirs), is("u64", "u32"));
            assert_eq!(compare(theirs, ours), is("u32", "u64"));
        }
        assert_eq!(compare(first::layout(), other_and_grew::layout()), is("u64", "u32"));
        assert_eq!(compare(other_and_grew::layout(), first::layout()), is("u32", "u64"));
    }

    #[test]
    fn two_sides_that_each_have_what_the_other_lacks_do_not_fit() {
        for (ours, theirs) in [(root_grew::layout(), host_grew::layout()), (host_grew::layout(), root_grew::layout())] {
            let reason = compare(ours, theirs).expect_err("they are refused");
            assert!(reason.contains("fields in the plugin"), "{reason}");
        }
    }
}
