//! Where is the host that is meant, and what lets this client in?
//!
//! A host leaves its admin address and a token in its data folder. That folder is named with `--data`, or it is that of `midair dev` in the
//! workspace here, or that of this user's `midair run`. A token goes to the address that the same folder names, or that the user named, and
//! nowhere else: another program may listen where a host is expected.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::args::Client;
use super::data;
use super::serve::token;
use crate::error::{Code, Error, Result};
use crate::http::admin_token;

/// Where to ask, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) address: String,
    pub(super) token: Option<String>,
}

/// Finds the host that `ask` means.
///
/// # Errors
///
/// If nothing says where it is, or what says so can't be relied on.
pub(super) fn find(ask: &Client) -> Result<Host> {
    let here = env::current_dir().ok();
    find_from(ask, here.as_deref(), &|name| env::var_os(name), token(ask.admin_token.clone()))
}

type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn find_from(ask: &Client, here: Option<&Path>, variable: Variable<'_>, given: Option<String>) -> Result<Host> {
    if let Some(folder) = &ask.data {
        let address = noted(folder).map_err(|error| {
            Error::fatal(Code::Io, folder.display().to_string(), "no host with an admin listener runs on this data folder")
                .caused_by(error)
                .help("say where the host is with --admin ADDR, or start it without --admin off")
        })?;
        return with_token(folder, address, given);
    }
    let found = usual(here, variable).into_iter().filter(|folder| is_ours(folder));
    let mut found = found.filter_map(|folder| noted(&folder).ok().map(|address| (folder, address)));
    let Some(told) = ask.admin.as_deref().map(bare) else {
        let (folder, address) = found.next().ok_or_else(|| {
            Error::fatal(
                Code::Io,
                "",
                "no host is found: none runs in this workspace, nor on the data folder of this user's `midair run`",
            )
            .help("start one with `midair dev`, or say where it is: --data DIR or --admin ADDR")
        })?;
        return with_token(&folder, address, given);
    };
    match found.find(|(_, address)| *address == told) {
        Some((folder, address)) if given.is_none() => with_token(&folder, address, None),
        _ => Ok(Host { address: told, token: given }),
    }
}

/// The data folders of hosts that needn't be named, the nearest first.
fn usual(here: Option<&Path>, variable: Variable<'_>) -> Vec<PathBuf> {
    let workspaces = here.into_iter().flat_map(Path::ancestors).filter(|folder| folder.join("Cargo.toml").is_file());
    let workspaces: Vec<&Path> = workspaces.collect();
    let named = ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"].into_iter().find_map(variable).filter(|_| !workspaces.is_empty());
    let targets = named.map(PathBuf::from).into_iter().chain(workspaces.iter().map(|folder| folder.join("target")));
    targets.map(|target| target.join("midair/data")).chain(data::of_user(variable).ok()).collect()
}

/// Whether this user made it: what others leave in a folder above this one, or in a shared target folder, is no host of his.
fn is_ours(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|about| about.uid() == rustix::process::geteuid().as_raw())
}

/// The address with what its folder has to go with it.
fn with_token(folder: &Path, address: String, given: Option<String>) -> Result<Host> {
    let file = folder.join(admin_token::FILE);
    let unreadable = |error| Error::fatal(Code::Io, file.display().to_string(), "the admin token can't be read").caused_by(error);
    let token = match given {
        Some(token) => Some(token),
        None => match fs::read_to_string(&file) {
            Ok(line) => Some(line.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(error).help("ask as the host's own user, or set MIDAIR_ADMIN_TOKEN")),
        },
    };
    if token.is_some() && !admin_token::is_private(folder).map_err(unreadable)? {
        let problem = "others may write to this data folder, so the address in it may be theirs: no token is sent there";
        return Err(Error::fatal(Code::Perm, folder.display().to_string(), problem)
            .help(format!("`chmod go-w {}` and restart the host, or name the address: --admin ADDR", folder.display())));
    }
    Ok(Host { address, token })
}

/// The address that a living host left here. Where one was killed, another program may listen by now.
fn noted(folder: &Path) -> std::io::Result<String> {
    if !data::is_claimed(folder) {
        return Err(ErrorKind::NotFound.into());
    }
    fs::read_to_string(folder.join("admin")).map(|told| bare(&told))
}

fn bare(told: &str) -> String {
    let bare = told.trim().trim_start_matches("http://").trim_end_matches('/');
    if bare.parse::<u16>().is_ok() { format!("127.0.0.1:{bare}") } else { bare.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::PermissionsExt;

    use super::data::Data;
    use super::*;

    struct Lab {
        root: tempfile::TempDir,
        claimed: RefCell<Vec<Data>>,
    }

    impl Lab {
        fn new() -> Self {
            let root = tempfile::tempdir().expect("a folder");
            fs::create_dir_all(root.path().join("shop/src")).expect("a folder");
            fs::write(root.path().join("shop/Cargo.toml"), "").expect("a file");
            Self { root, claimed: RefCell::default() }
        }

        /// A data folder with this address, and a token if it has one.
        fn host(&self, folder: &str, address: &str, token: Option<&str>) -> PathBuf {
            let folder = self.root.path().join(folder);
            fs::create_dir_all(&folder).expect("a folder");
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
            self.claimed.borrow_mut().push(Data::claim(&folder).expect("free"));
            fs::write(folder.join("admin"), format!("http://{address}\n")).expect("a file");
            if let Some(token) = token {
                fs::write(folder.join("admin-token"), format!("{token}\n")).expect("a file");
            }
            folder
        }

        /// The address and the token, from `shop/src`; `-` for none.
        fn check(&self, admin: Option<&str>, data: Option<&Path>, given: Option<&str>) -> String {
            let ask = Client { admin: admin.map(str::to_owned), data: data.map(Path::to_owned), admin_token: None, json: false };
            let variable = |name: &str| (name == "HOME").then(|| self.root.path().join("home").into_os_string());
            match find_from(&ask, Some(&self.root.path().join("shop/src")), &variable, given.map(str::to_owned)) {
                Ok(Host { address, token }) => format!("{address} {}", token.as_deref().unwrap_or("-")),
                Err(error) => error.to_string(),
            }
        }
    }

    #[test]
    fn the_host_is_found_by_its_folder_the_workspace_or_the_user() {
        let lab = Lab::new();
        assert!(lab.check(None, None, None).contains("no host is found"));
        lab.host("home/.local/state/midair", "127.0.0.1:1", Some("users"));
        assert_eq!(lab.check(None, None, None), "127.0.0.1:1 users");
        lab.host("shop/target/midair/data", "127.0.0.1:2", Some("workspaces"));
        assert_eq!(lab.check(None, None, None), "127.0.0.1:2 workspaces");
        let folder = lab.host("elsewhere", "[::1]:3", Some("folders"));
        assert_eq!(lab.check(None, Some(&folder), None), "[::1]:3 folders");
        assert!(lab.check(None, Some(&lab.root.path().join("nowhere")), None).contains("no host with an admin listener"));
        let without = lab.host("without", "127.0.0.1:4", None);
        assert_eq!(lab.check(None, Some(&without), None), "127.0.0.1:4 -");
    }

    #[test]
    fn a_token_goes_to_the_address_that_its_own_folder_names_or_that_the_user_named() {
        let lab = Lab::new();
        let folder = lab.host("shop/target/midair/data", "127.0.0.1:2", Some("made"));
        for (admin, given, found) in [
            (Some("127.0.0.1:2"), None, "127.0.0.1:2 made"),
            (Some("http://127.0.0.1:2/"), None, "127.0.0.1:2 made"),
            (Some("2"), None, "127.0.0.1:2 made"),
            (Some("127.0.0.1:3001"), None, "127.0.0.1:3001 -"),
            (Some("box.local:1"), Some("given"), "box.local:1 given"),
            (Some("127.0.0.1:2"), Some("given"), "127.0.0.1:2 given"),
            (None, Some("given"), "127.0.0.1:2 given"),
        ] {
            assert_eq!(lab.check(admin, None, given), found, "{admin:?} {given:?}");
        }
        fs::remove_file(folder.join("admin")).expect("it is there");
        assert!(lab.check(None, None, Some("given")).contains("no host is found"), "and to no address that is only usual");
    }

    #[test]
    fn a_host_that_was_killed_names_no_address() {
        let lab = Lab::new();
        let folder = lab.host("shop/target/midair/data", "127.0.0.1:2", Some("made"));
        lab.claimed.borrow_mut().clear();
        assert!(lab.check(None, None, Some("given")).contains("no host is found"));
        assert!(lab.check(None, Some(&folder), Some("given")).contains("no host with an admin listener"));
        assert_eq!(lab.check(Some("127.0.0.1:2"), None, None), "127.0.0.1:2 -");
    }

    #[test]
    fn no_token_goes_where_others_may_have_written_the_address() {
        let lab = Lab::new();
        let folder = lab.host("open", "127.0.0.1:2", Some("made"));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
        for given in [None, Some("given")] {
            assert!(lab.check(None, Some(&folder), given).contains("no token is sent there"));
        }
        assert_eq!(lab.check(Some("127.0.0.1:2"), None, Some("given")), "127.0.0.1:2 given");
    }
}
