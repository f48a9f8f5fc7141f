//! Code that the system runs while it opens the plugin: by its variant it does no harm, dies, hangs or floods its output.
#![expect(unsafe_code, reason = "a constructor, and what one may do wrong")]

use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::process::Command;

midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    midair_plugin::Plugin::new().get("/", |_, _| "bad")
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what it prints must do no harm")]
extern "C" fn construct() {
    let flood = || (0..200_000).for_each(|n| println!("line {n} of a flood"));
    match midair_fixtures::variant() {
        // SAFETY: there is none: it is meant to be killed by this.
        "segfaults" => unsafe { (8 as *mut u8).write_volatile(1) },
        "aborts" => {
            eprintln!("no way");
            std::process::abort()
        }
        "exits" => std::process::exit(0),
        "kills itself" => {
            let _ = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
            hang()
        }
        "hangs" => hang(),
        "floods" => flood(),
        "floods, fakes and aborts" => {
            flood();
            // SAFETY: whoever runs this has a standard input, and nothing else owns it here.
            let mut stdin = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(0) });
            for to in [&mut *stdin as &mut dyn Write, &mut std::io::stdout(), &mut std::io::stderr()] {
                let _ = to.write_all(b"\n\"passed\"\n");
            }
            println!("the end of it");
            std::process::abort()
        }
        _ => {}
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}
