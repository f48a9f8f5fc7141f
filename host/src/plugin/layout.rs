//! Which type at the border differs?
//!
//! abi_stable compares the layouts with fresh globals each time, since its process-wide checker keeps pointers into plugins. What it
//! prints is hundreds of lines; the reader needs the innermost type and field.

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
    let ours = <RootRef as StableAbi>::LAYOUT;
    check_layout_compatibility_with_globals(ours, theirs, &CheckingGlobals::new()).map_err(|errors| boil_down(&errors))
}

/// The difference that explains the others: a field of another type before a type of another size.
fn boil_down(errors: &AbiInstabilityErrors) -> String {
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
    best.map_or_else(|| "the types at the border differ".to_owned(), tell)
}

fn tell(error: &AbiInstabilityError) -> String {
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
                if let (Some(ours), Some(theirs)) = (layout_of(&last.expected), layout_of(&last.found)) {
                    return format!("`{place}` is {} in the plugin, {} in the host", name_of(theirs), name_of(ours));
                }
            }
            AbiInstability::UnexpectedField(fields) => {
                let (ours, theirs) = (fields.expected.name(), fields.found.name());
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
                return format!("`{holder}` has {} fields in the plugin, {} in the host", counts.found, counts.expected);
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
