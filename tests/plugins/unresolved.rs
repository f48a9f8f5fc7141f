//! Calls what nobody defines, while the system opens it.
#![expect(unsafe_code, reason = "a function of nobody's, and a constructor that calls it")]

midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    midair_plugin::Plugin::new().get("/", |_, _| midair_fixtures::variant())
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

unsafe extern "C" {
    fn midair_has_no_such_function();
}

extern "C" fn construct() {
    // SAFETY: there is none: no loader is to come this far.
    unsafe { midair_has_no_such_function() }
}
