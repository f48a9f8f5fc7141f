use std::fs;

use super::*;
use crate::live::generation::Identity;
use crate::live::probation::Rules;
use crate::live::rollout::tests::{ends, setup};
use crate::live::rollout::{Origin, Rollout};

fn open(data: &Path) -> (Recovery, Vec<String>) {
    Recovery::open(data, true, &Bus::default()).expect("what is known")
}

fn flushed(recovery: &Recovery) {
    recovery.flush(None, None).expect("written");
}

/// A generation of `shop` whose private copy has this content.
fn generation(data: &Path, number: u64, content: &str) -> Arc<Generation> {
    generation_of(data, "shop", number, content)
}

fn generation_of(data: &Path, plugin: &str, number: u64, content: &str) -> Arc<Generation> {
    let file = data.join(format!("{plugin}{number}.so"));
    // Nobody writes a private copy twice: what was kept may be the same file by another name.
    let _ = fs::remove_file(&file);
    fs::write(&file, content).expect("a file");
    let digest = blake3::hash(content.as_bytes()).to_hex().to_string();
    let identity = Identity { plugin: plugin.to_owned(), number, digest, code: String::new(), file };
    Generation::without_code(identity, ends().0, Box::new(()))
}

fn kept(data: &Path) -> Vec<String> {
    let files = fs::read_dir(data.join("committed")).into_iter().flatten().flatten();
    let mut contents: Vec<_> = files.map(|file| fs::read_to_string(file.path()).expect("a file")).collect();
    contents.sort();
    contents
}

fn rules() -> Rules {
    Rules { time: Duration::ZERO, requests: 0, ..Rules::PRODUCTION }
}

fn publish(rollout: &mut Rollout, recovery: &Recovery, new: &Arc<Generation>) {
    let plan = rollout.publish(&[setup(new)], &[], Origin::Path, &rules(), Instant::now()).expect("no routes, no clash");
    recovery.publishes(&plan, false);
}

fn commit(rollout: &mut Rollout, recovery: &Recovery) {
    for generation in rollout.commit(&rules(), Instant::now()).concat() {
        generation.commit();
        assert!(recovery.commits(&generation, Event::Warning { message: "committed".to_owned() }).is_none(), "it is said later");
    }
}

fn breach(rollout: &mut Rollout, recovery: &Recovery, failed: &Arc<Generation>) {
    let plan = rollout.breach(failed.key(), Instant::now(), Instant::now()).expect("a way back");
    recovery.goes_back(&plan, HoldReason::Breach, "it failed");
}

#[test]
#[cfg_attr(miri, ignore = "makes a hard link, which Miri can't")]
fn g20_what_is_known_survives_and_an_end_in_good_order_blames_nobody() {
    let data = tempfile::tempdir().expect("a folder");
    let (recovery, damaged) = open(data.path());
    assert!(damaged.is_empty());
    let mut rollout = Rollout::new(4);
    let [a, b] = [(1, "a"), (2, "b")].map(|(number, content)| generation(data.path(), number, content));
    recovery.starts("shop", a.digest(), Some("/srv/libshop.so".as_ref()), None);
    flushed(&recovery);
    assert_eq!(open(data.path()).0.of("shop").candidate.as_deref(), Some(a.digest()), "it is there before it is started");
    publish(&mut rollout, &recovery, &a);
    commit(&mut rollout, &recovery);
    publish(&mut rollout, &recovery, &b);
    flushed(&recovery);
    let known = open(data.path()).0.of("shop");
    assert_eq!((known.committed.as_deref(), known.pending.as_deref(), known.candidate), (Some(a.digest()), Some(b.digest()), None));
    assert_eq!((known.source, kept(data.path())), ("/srv/libshop.so".into(), vec!["a".to_owned()]));
    // What is about to be started when the end begins isn't excused by that; the end itself excuses all.
    recovery.starts("shop", "c", None, None);
    recovery.ends(&[Arc::clone(&b)]);
    assert_eq!((recovery.of("shop").pending, recovery.of("shop").candidate), (None, Some("c".to_owned())));
    recovery.ended();
    flushed(&recovery);
    let known = open(data.path()).0.of("shop");
    assert_eq!((known.committed.as_deref(), known.pending, known.candidate, known.deaths), (Some(a.digest()), None, None, 0));
}

#[test]
#[cfg_attr(miri, ignore = "makes a hard link, which Miri can't")]
fn what_served_uncommitted_is_kept_until_something_is_committed() {
    let data = tempfile::tempdir().expect("a folder");
    let (recovery, _) = open(data.path());
    let mut rollout = Rollout::new(4);
    let [a, b, c] = [(1, "a"), (2, "b"), (3, "c")].map(|(number, content)| generation(data.path(), number, content));
    publish(&mut rollout, &recovery, &a);
    publish(&mut rollout, &recovery, &b);
    flushed(&recovery);
    assert_eq!((recovery.of("shop").fallback.as_deref(), kept(data.path())), (Some(a.digest()), vec!["a".to_owned()]));
    breach(&mut rollout, &recovery, &b);
    let known = recovery.of("shop");
    assert_eq!(
        (known.start().map(|(digest, kind)| (digest.to_owned(), kind)), known.held(b.digest()).is_some()),
        (Some((a.digest().to_owned(), Kind::Fallback)), true)
    );
    assert_eq!(known.pending.as_deref(), Some(a.digest()), "it is on trial again");
    publish(&mut rollout, &recovery, &c);
    assert!(recovery.of("shop").held(b.digest()).is_some(), "other bytes don't let go what is held");
    commit(&mut rollout, &recovery);
    flushed(&recovery);
    let known = recovery.of("shop");
    assert_eq!((known.committed.as_deref(), known.fallback, kept(data.path())), (Some(c.digest()), None, vec!["c".to_owned()]));
}

#[test]
fn a_hold_outlives_the_publish_that_it_follows_and_ends_with_its_own_bytes() {
    let data = tempfile::tempdir().expect("a folder");
    let (recovery, _) = open(data.path());
    let mut rollout = Rollout::new(4);
    let [a, b, again] = [(1, "a"), (2, "b"), (3, "b")].map(|(number, content)| generation(data.path(), number, content));
    publish(&mut rollout, &recovery, &a);
    publish(&mut rollout, &recovery, &b);
    breach(&mut rollout, &recovery, &b);
    flushed(&recovery);
    assert_eq!(open(data.path()).0.of("shop").held(b.digest()).map(|held| held.by), Some(HoldReason::Breach));
    publish(&mut rollout, &recovery, &again);
    assert_eq!(recovery.of("shop").held(b.digest()), None, "somebody forced it");
}

#[test]
#[cfg_attr(miri, ignore = "makes a hard link, which Miri can't")]
fn a_rollback_by_hand_that_a_commit_was_decided_before_is_what_is_written() {
    let data = tempfile::tempdir().expect("a folder");
    let (recovery, _) = open(data.path());
    let mut rollout = Rollout::new(4);
    let [a, b] = [(1, "a"), (2, "b")].map(|(number, content)| generation(data.path(), number, content));
    publish(&mut rollout, &recovery, &a);
    commit(&mut rollout, &recovery);
    publish(&mut rollout, &recovery, &b);
    let next = "c".repeat(64);
    recovery.starts("shop", &next, None, None);
    // The disk may be as slow as it likes: what is decided last is what it has at the end.
    commit(&mut rollout, &recovery);
    let plan = rollout.back(&crate::live::refusal::Which::Last).expect("a way back");
    recovery.goes_back(&plan, HoldReason::Hand, "asked for");
    flushed(&recovery);
    let known = open(data.path()).0.of("shop");
    assert_eq!((known.committed.as_deref(), known.held.len(), kept(data.path())), (Some(a.digest()), 1, vec!["a".to_owned()]));
    assert_eq!(known.candidate, Some(next), "what is about to be started is still to blame for itself");
}

#[test]
fn what_cannot_be_kept_is_told_once_and_the_record_goes_on_naming_what_is_there() {
    let data = tempfile::tempdir().expect("a folder");
    let bus = Bus::default();
    let (hears, told) = std::sync::mpsc::channel();
    bus.listen(move |event| {
        let event = serde_json::to_value(&**event).expect("an event");
        hears.send(event["message"].as_str().unwrap_or_default().to_owned()).is_ok()
    });
    let (recovery, _) = Recovery::open(data.path(), true, &bus).expect("what is known");
    let mut rollout = Rollout::new(4);
    let [a, b] = [(1, "a"), (2, "b")].map(|(number, content)| generation(data.path(), number, content));
    publish(&mut rollout, &recovery, &a);
    commit(&mut rollout, &recovery);
    flushed(&recovery);
    // What was hashed isn't what lies there any more: it was cut short.
    fs::write(b.file(), "").expect("a file");
    publish(&mut rollout, &recovery, &b);
    commit(&mut rollout, &recovery);
    let error = recovery.flush(None, None).expect_err("it can't be kept");
    assert!(error.reason().contains("shop that a next start would begin with") && error.help_text().is_some(), "{error:?}");
    let known = open(data.path()).0.of("shop");
    assert_eq!((known.committed.as_deref(), kept(data.path())), (Some(a.digest()), vec!["a".to_owned()]));
    assert_eq!(recovery.of("shop").committed.as_deref(), Some(b.digest()), "that it is committed is known all the same");
    // They are said after what is known was written, in this order, and each once.
    let said: Vec<String> = (0..3).map(|_| told.recv().expect("what is told")).collect();
    assert!(said[0] == "committed" && said[1].contains("make room on the disk") && said[2] == "committed", "{said:?}");
    drop(recovery);
    assert!(told.try_recv().is_err());
}

#[test]
fn a_file_that_makes_no_sense_is_put_aside_and_told() {
    let data = tempfile::tempdir().expect("a folder");
    let file = data.path().join("marks/shop.json");
    for damage in ["", "{", "[]", "{\"committed\":\"../../etc\"}", "{\"deaths\":-1}", "{\"what\":1}"] {
        fs::create_dir_all(data.path().join("marks")).expect("a folder");
        fs::write(&file, damage).expect("a file");
        let (recovery, damaged) = open(data.path());
        assert_eq!((damaged.len(), recovery.of("shop")), (1, RecoveryRecord::default()), "{damage:?}");
        assert!(damaged[0].contains("shop.json makes no sense") && !file.exists(), "{damaged:?}");
    }
    let kept = fs::read_to_string(file.with_extension("damaged")).expect("it is kept");
    assert_eq!(kept, "{\"what\":1}");
}

#[test]
fn an_artifact_may_have_any_name() {
    use std::os::unix::ffi::OsStrExt;
    let data = tempfile::tempdir().expect("a folder");
    for name in [&b"/srv/libsh\xffp.so"[..], b"/srv/libshop.so", b""] {
        let source = PathBuf::from(std::ffi::OsStr::from_bytes(name));
        let (recovery, _) = open(data.path());
        recovery.starts("shop", &"a".repeat(64), Some(&source), None);
        flushed(&recovery);
        let (recovery, damaged) = open(data.path());
        assert_eq!((recovery.of("shop").source, damaged.len()), (source, 0));
    }
}

#[test]
fn what_cannot_be_written_is_an_error_for_who_waits_for_it_and_no_one_else() {
    let data = tempfile::tempdir().expect("a folder");
    let (recovery, _) = open(data.path());
    // A file where the folder would be.
    fs::write(data.path().join("marks"), "").expect("a file");
    recovery.starts("shop", &"a".repeat(64), None, None);
    let error = recovery.flush(Some(&["shop"]), None).expect_err("there is no folder");
    assert_eq!(error.code(), Code::Io);
    assert!(recovery.flush(Some(&["other"]), None).is_ok());
    recovery.drops("shop", &"a".repeat(64));
    assert!(recovery.flush(Some(&["shop"]), None).is_ok(), "the disk is as it should be again");
}

/// One run after the other of a host with two plugins, whose artifacts, commits, breaches, rollbacks and deaths come in any order.
struct Model {
    data: tempfile::TempDir,
    seed: u64,
    /// All contents that ever served or were committed, by plugin.
    served: BTreeMap<&'static str, Vec<String>>,
    contents: u64,
    story: String,
}

const PLUGINS: [&str; 2] = ["a", "b"];

impl Model {
    fn any(&mut self, below: u64) -> u64 {
        // xorshift64
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    fn tell(&mut self, what: &str) {
        self.story.push_str(what);
        self.story.push('\n');
    }

    /// What the next run begins with is as it should be; it is what serves then.
    fn start(&mut self, recovery: &Recovery, rollout: &mut Rollout, number: &mut u64) {
        for plugin in PLUGINS {
            let mut record = recovery.of(plugin);
            // A kill, a crash of the host's own, or in the code of anything that the record knows.
            let known = [&record.pending, &record.candidate, &record.committed].map(Option::clone);
            let seen = usize::try_from(self.any(5)).expect("small");
            let evidence = match known.get(seen).cloned().flatten() {
                Some(digest) => Evidence::Code { signal: 6, digest },
                None if seen == 3 => Evidence::Signal(6),
                None => Evidence::None,
            };
            self.tell(&format!("what is left of the death: {evidence:?}"));
            let deaths = record.after_death(&evidence);
            recovery.starts_after(plugin, &record);
            let story = &self.story;
            assert!(deaths.iter().all(|death| !death.is_held || record.held(&death.digest).is_some()), "{story}");
            let Some((digest, kind)) = record.start() else { continue };
            assert_eq!(record.held(digest), None, "what is held is started\n{story}");
            let content = fs::read_to_string(recovery.copy_of(plugin, digest)).unwrap_or_else(|error| panic!("{error}\n{story}"));
            assert_eq!(blake3::hash(content.as_bytes()).to_hex().as_str(), digest, "{story}");
            assert!(self.served[plugin].contains(&content), "it never served\n{story}");
            *number += 1;
            let new = generation_of(self.data.path(), plugin, *number, &content);
            recovery.starts(plugin, new.digest(), None, None);
            let origin = if kind == Kind::Committed { Origin::Recovered } else { Origin::Fallback };
            let plan = rollout.publish(&[setup(&new)], &[], origin, &rules(), Instant::now()).expect("no routes, no clash");
            recovery.publishes(&plan, false);
            self.tell(&format!("{plugin} begins with {content}, {kind:?}"));
        }
    }

    fn run(&mut self) {
        let (recovery, damaged) = open(self.data.path());
        assert!(damaged.is_empty(), "{damaged:?}\n{}", self.story);
        let (mut rollout, mut number) = (Rollout::new(2), 0);
        self.start(&recovery, &mut rollout, &mut number);
        let mut live: BTreeMap<&str, Arc<Generation>> = BTreeMap::new();
        for _ in 0..self.any(12) {
            let plugin = PLUGINS[usize::try_from(self.any(2)).expect("small")];
            match self.any(6) {
                0 | 1 => {
                    (self.contents, number) = (self.contents + 1, number + 1);
                    let content = format!("{plugin}{}", self.contents);
                    let new = generation_of(self.data.path(), plugin, number, &content);
                    self.tell(&format!("{plugin} publishes {content}"));
                    recovery.starts(plugin, new.digest(), None, live.get(plugin));
                    recovery.flush(Some(&[plugin]), None).expect("written");
                    publish(&mut rollout, &recovery, &new);
                    self.served.entry(plugin).or_default().push(content);
                    live.insert(plugin, new);
                }
                2 => {
                    self.tell("what is due is committed");
                    commit(&mut rollout, &recovery);
                }
                3 => {
                    let Some(failed) = live.get(plugin) else { continue };
                    let Some(plan) = rollout.breach(failed.key(), Instant::now(), Instant::now()) else { continue };
                    self.tell(&format!("{plugin} breaches"));
                    recovery.goes_back(&plan, HoldReason::Breach, "it failed");
                    plan.settles.iter().for_each(|back| back.commit());
                    live.insert(plugin, Arc::clone(&plan.enters[0].generation));
                }
                4 => {
                    let Ok(plan) = rollout.back(&crate::live::refusal::Which::Plugin(plugin.to_owned())) else { continue };
                    self.tell(&format!("{plugin} goes back by hand"));
                    recovery.goes_back(&plan, HoldReason::Hand, "asked for");
                    plan.settles.iter().for_each(|back| back.commit());
                    live.insert(plugin, Arc::clone(&plan.enters[0].generation));
                }
                _ => {
                    self.tell(&format!("{plugin} refuses a candidate"));
                    recovery.starts(plugin, &"f".repeat(64), None, None);
                    recovery.drops(plugin, &"f".repeat(64));
                }
            }
            // What is known never has the host go back to nothing, and never holds what serves.
            for (plugin, live) in &live {
                let record = recovery.of(plugin);
                assert_eq!(record.held(live.digest()), None, "{plugin} serves what is held\n{}", self.story);
                let is_its = record.pending.as_deref().is_none_or(|pending| pending == live.digest());
                assert!(is_its, "what {plugin} went back from would be blamed for a death\n{}", self.story);
            }
        }
        match self.any(3) {
            0 => {
                self.tell("it ends in good order");
                recovery.ends(&live.into_values().collect::<Vec<_>>());
                recovery.ended();
                flushed(&recovery);
                let marks = open(self.data.path()).0.all();
                assert!(marks.values().all(|mark| mark.pending.is_none() && mark.deaths == 0), "{marks:?}\n{}", self.story);
            }
            // As far as the disk has come by then, or a little further.
            1 => self.tell("it is killed"),
            _ => {
                self.tell("it is killed once all is written");
                flushed(&recovery);
            }
        }
        recovery.dies();
    }
}

#[test]
#[cfg_attr(miri, ignore = "makes hard links, which Miri can't")]
fn fault_36_g20_whatever_happened_before_a_death_the_next_run_starts_what_served_and_nothing_that_is_held() {
    for seed in 1..60 {
        let data = tempfile::tempdir().expect("a folder");
        let served = PLUGINS.map(|plugin| (plugin, Vec::new())).into();
        let mut model = Model { data, seed, served, contents: 0, story: format!("seed {seed}\n") };
        for _ in 0..6 {
            model.run();
        }
    }
}
