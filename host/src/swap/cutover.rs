//! What changes what serves?
//!
//! A publish, a rollback by hand, a breach, an edit of the config and the end of the host all come here with a decision, and only here the slot is
//! stored into.
//!
//! # Protocol
//!
//! 1. The rollout's lock is taken, and held to the end of 10. So there is one order of all changes, and each builds on what was live at that
//!    moment. No plugin's code runs under it, and no file is written by this thread; *opens* may wait up to a second for the
//!    state's, and stops waiting when a rollback wants its turn. `decide` makes a [`Plan`] of the rollout, or leaves it as it was.
//!    From here on nothing can fail.
//! 2. *before the store*: queues of what enters are open. Nothing takes from them yet.
//! 3. What enters is no candidate any more. *opens*: what its `init` wrote takes effect, all plugins' at once. A call that is admitted after 5
//!    sees all of it, unless the state's disk takes longer than the second that is waited for; none that was admitted before sees half of it.
//! 4. The terms of the snapshot begin: from now on their ends are told.
//! 5. **The store.** Calls that load the slot after it reach what enters; those that loaded it before keep what they loaded, to their end.
//! 6. *left*: what left knows that it serves no more. *serving*: what enters is given jobs and messages; what only the code before has goes on
//!    waiting where that may come back.
//! 7. *settled*: what was committed before and came back, what was put back by hand, and what is never on trial is committed: nothing waits for
//!    older code any more.
//! 8. *ending*: what left is told to end. It can't before 6, or what it says at its end would find nobody.
//! 9. *entered*: what waited to hear that new code serves goes on, messages that `init` emitted among it. *begins*: declared tasks begin.
//! 10. If the host ends by now, what entered is told so. Ways back of other trials are prepared anew.
//!
//! Each phase runs for all residents, and for all plugins of the plan, before the next begins.
//!
//! The end of the host takes no lock. It first says that it ends and then looks at the slot; a cutover first stores and then looks whether the
//! host ends. Both are sequentially consistent, so one of them tells what serves: it may be told twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::live::comparison::{Comparison, Finding};
use crate::live::generation::Generation;
use crate::live::probation::Rules;
use crate::live::resident::{By, Plan, Resident};
use crate::live::rollout::{Rollout, Standing};
use crate::live::slot::Slot;
use crate::live::snapshot::Snapshot;
use crate::live::urgency::Urgency;
use crate::mutation::{self, Bug};

/// The one way to what serves.
pub(super) struct Cutover {
    slot: Arc<Slot>,
    rollout: Mutex<Rollout>,
    residents: Vec<Arc<dyn Resident>>,
    urgency: Arc<Urgency>,
    standing: Mutex<Arc<Standing>>,
    is_ending: AtomicBool,
}

/// A plan that was performed.
pub(super) struct Performed {
    /// What it was.
    pub(super) plan: Plan,
    /// What served before.
    pub(super) before: Arc<Snapshot>,
    /// When all of it was done.
    pub(super) at: Instant,
}

impl Cutover {
    /// Nothing serves yet.
    #[must_use]
    pub(super) fn new(slot: Arc<Slot>, rollout: Rollout, residents: Vec<Arc<dyn Resident>>, urgency: Arc<Urgency>) -> Self {
        Self {
            slot,
            rollout: Mutex::new(rollout),
            residents,
            urgency,
            standing: Mutex::default(),
            is_ending: AtomicBool::new(false),
        }
    }

    /// Has `decide` make a plan, and performs it.
    ///
    /// # Errors
    ///
    /// What `decide` says: then nothing changed, if it changed nothing.
    pub(super) fn perform<E>(&self, decide: impl FnOnce(&mut Rollout) -> Result<Plan, E>) -> Result<Performed, E> {
        self.performed(self.rollout.lock(), decide)
    }

    /// The same for a way back: a cutover that waits for something meanwhile stops waiting.
    ///
    /// # Errors
    ///
    /// As [`perform`](Self::perform).
    pub(super) fn perform_at_once<E>(&self, decide: impl FnOnce(&mut Rollout) -> Result<Plan, E>) -> Result<Performed, E> {
        let waits = self.urgency.waits();
        let rollout = self.rollout.lock();
        drop(waits);
        self.performed(rollout, decide)
    }

    fn performed<E>(
        &self,
        mut rollout: MutexGuard<'_, Rollout>,
        decide: impl FnOnce(&mut Rollout) -> Result<Plan, E>,
    ) -> Result<Performed, E> {
        let plan = decide(&mut rollout)?;
        let before = run(&self.slot, &plan, &self.residents);
        if self.is_ending() {
            let entered: Vec<Arc<Generation>> = plan.entering().cloned().collect();
            self.residents.iter().for_each(|resident| resident.shutdown(&entered));
        }
        let at = Instant::now();
        rollout.renew();
        // A long call may hold what served before, which must hold no more than itself.
        before.compare(Vec::new());
        self.compare(&mut rollout);
        *self.standing.lock() = Arc::new(rollout.standing());
        Ok(Performed { plan, before, at })
    }

    /// Commits what has proven itself by `now`; `note` hears of each in that order, and may not wait.
    pub(super) fn commit(&self, rules: &Rules, now: Instant, note: impl FnMut(&Arc<Generation>)) {
        let mut rollout = self.rollout.lock();
        rollout.rearm(now);
        let due = rollout.commit(rules, now).concat();
        due.iter().for_each(|generation| {
            generation.commit();
            self.residents.iter().for_each(|resident| resident.settled(generation));
        });
        due.iter().for_each(note);
        if !due.is_empty() {
            *self.standing.lock() = Arc::new(rollout.standing());
        }
    }

    /// Has what serves compare what the rollout says.
    fn compare(&self, rollout: &mut Rollout) {
        self.slot.now().compare(rollout.compared());
    }

    /// Looks into the suspicion that the generation with this key is slower than the one before: both from now on answer what both can, by lot.
    /// The two of them; `None` if there is nothing to compare it with.
    pub(super) fn suspect(&self, key: u64, rules: &Rules, now: Instant) -> Option<(Arc<Generation>, Arc<Generation>)> {
        let mut rollout = self.rollout.lock();
        let before = rollout.suspect(key, rules, now)?;
        self.compare(&mut rollout);
        let live = self.slot.now().generation(before.plugin()).map(Arc::clone)?;
        Some((live, before))
    }

    /// What the comparison of the generation with this key says, if it goes on; each of them without a key. One that found nothing is over.
    pub(super) fn look(&self, key: Option<u64>, now: Instant) -> Vec<(u64, Finding)> {
        let is_meant = |one: &Arc<Comparison>| key.map_or(one.until() <= now, |key| one.generation() == key);
        let comparisons: Vec<Arc<Comparison>> = self.rollout.lock().comparisons().filter(is_meant).collect();
        // Without the lock, as it takes a moment.
        let found: Vec<_> = comparisons.iter().map(|one| (one.generation(), one.look(now))).collect();
        if found.iter().any(|(_, finding)| matches!(finding, Finding::Equal(_))) {
            let mut rollout = self.rollout.lock();
            let equal = found.iter().filter(|(_, finding)| matches!(finding, Finding::Equal(_)));
            equal.for_each(|(key, _)| rollout.acquit(*key));
            self.compare(&mut rollout);
        }
        found
    }

    /// When something is due next.
    pub(super) fn due(&self, rules: &Rules, now: Instant) -> Option<Duration> {
        self.rollout.lock().due(rules, now)
    }

    /// What serves, and how everything stands since the last change. Waits for no change that is being made.
    pub(super) fn standing(&self) -> (Arc<Snapshot>, Arc<Standing>) {
        let standing = self.standing.lock();
        (self.slot.now(), Arc::clone(&standing))
    }

    /// The host ends: what serves is told.
    pub(super) fn shut_down(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
        let live = self.slot.now();
        self.residents.iter().for_each(|resident| resident.shutdown(live.generations()));
    }

    /// Whether the host ends.
    #[must_use]
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }
}

/// Steps 2 to 9; what served before.
fn run(slot: &Slot, plan: &Plan, residents: &[Arc<dyn Resident>]) -> Arc<Snapshot> {
    let epoch = plan.snapshot.epoch();
    let phase = |phase: fn(&dyn Resident, &Plan)| residents.iter().for_each(|resident| phase(&**resident, plan));
    phase(|resident, plan| resident.before_store(plan));
    plan.entering().for_each(|new| new.open());
    phase(|resident, plan| resident.opens(plan));
    plan.snapshot.begin();
    let is_stored = !match plan.by {
        By::Publish => mutation::is(Bug::SaysUnseen),
        By::Rollback => mutation::is(Bug::RollbackUnstored),
    };
    let before = if is_stored { slot.store(Arc::clone(&plan.snapshot)) } else { slot.now() };
    plan.leaves.iter().for_each(|old| old.leaves(epoch));
    phase(|resident, plan| resident.left(plan));
    phase(|resident, plan| resident.serving(plan));
    plan.settles.iter().for_each(|back| back.commit());
    residents.iter().for_each(|resident| plan.settles.iter().for_each(|back| resident.settled(back)));
    phase(|resident, plan| resident.ending(plan));
    plan.entering().for_each(|new| new.enters(epoch));
    phase(|resident, plan| resident.entered(plan));
    phase(|resident, plan| resident.begins(plan));
    before
}

#[cfg(all(test, not(midair_loom)))]
mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use super::*;
    use crate::call::context::{HostContext, attachment};
    use crate::live::generation::Ends;
    use crate::live::lease::Leases;
    use crate::live::rollout::Origin;
    use crate::live::rollout::tests::{ends, identity, setup, shown};
    use crate::plugin::symbolize::Namer;
    use crate::report::event::Bus;
    use crate::report::event::Event;
    use crate::resources::host_services::Offers;
    use crate::resources::logs::Logs;
    use crate::resources::sockets::Sockets;
    use crate::resources::state::State;
    use crate::resources::tasks::Tasks;
    use crate::resources::topics::Messages;
    use crate::work::hostcalls;
    use crate::work::jobs::Jobs;
    use crate::work::residents;

    fn context(ends: Ends) -> Arc<HostContext> {
        let (bus, tasks) = (Bus::default(), Tasks::new());
        Arc::new(HostContext {
            store: State::in_memory(Default::default()),
            logs: Logs::of_probe(bus.clone()),
            frames: Namer::without_names(bus.clone()),
            messages: Messages::new(Arc::clone(&tasks), bus.clone()),
            bus,
            leases: Leases::new(),
            dev: false,
            probe: false,
            functions: hostcalls::functions(),
            ends,
            tasks,
            offers: Offers::default(),
            sockets: Sockets::new(),
            urgency: Default::default(),
            front: Default::default(),
        })
    }

    fn generation(plugin: &str, number: u64, context: &Arc<HostContext>) -> Arc<Generation> {
        Generation::without_code(identity(plugin, number), context.ends.clone(), attachment(context))
    }

    /// A resident that is one file and one line elsewhere hears all that happens to what serves.
    #[test]
    fn a_resident_hears_each_phase_of_a_publish_a_breach_a_commit_and_the_end() {
        let (ends, _heard) = ends();
        let context = context(ends);
        let story = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&story);
        context.bus.listen(move |event| {
            if let Event::Warning { message } = &**event
                && let Some(message) = message.strip_prefix("tally: ")
            {
                told.lock().push_str(&format!("{message}\n"));
            }
            true
        });
        let nothing = Snapshot::compose(0, Vec::new()).expect("no routes, no clash");
        let slot = Arc::new(Slot::new(Arc::new(nothing)));
        let jobs = Jobs::start(Arc::clone(&slot), Arc::clone(&context.tasks)).expect("a thread");
        let residents = residents::all(&context, &jobs, Duration::ZERO);
        let cutover = Cutover::new(slot, Rollout::new(4), residents, Arc::default());
        let (rules, now) = (Rules { time: Duration::ZERO, requests: 0, ..Rules::PRODUCTION }, Instant::now());
        let publish = |of: &[(&str, u64)]| {
            let candidates: Vec<_> = of.iter().map(|(plugin, number)| setup(&generation(plugin, *number, &context))).collect();
            let decide = |rollout: &mut Rollout| rollout.publish(&candidates, &[], Origin::Path, &rules, now);
            cutover.perform(decide).map(|performed| performed.plan.snapshot).expect("no routes, no clash")
        };
        assert_eq!(publish(&[("a", 1), ("b", 1)]).epoch(), 1);
        cutover.commit(&rules, now, |_| ());
        let second = publish(&[("a", 2)]);
        assert_eq!((second.epoch(), shown(&second)), (2, "a=2 b=1".to_owned()));
        let breach = |rollout: &mut Rollout| rollout.breach(second.generations()[0].key(), now, now).ok_or(());
        let back = cutover.perform(breach).expect("a way back");
        assert_eq!((back.before.epoch(), back.plan.snapshot.epoch()), (2, 3));
        assert!(cutover.perform(breach).is_err(), "once");
        cutover.shut_down();
        // What is published while the host ends is told so too.
        assert_eq!(publish(&[("b", 2)]).epoch(), 4);
        expect![[r"
            a=1 serves, term 1
            b=1 serves, term 1
            a=1 stays
            b=1 stays
            a=1 left
            a=2 serves, term 2
            a=2 left
            a=1 serves, term 3
            a=1 stays
            a=1 serves to the end
            b=1 serves to the end
            b=1 left
            b=2 serves, term 2
            b=2 serves to the end
        "]]
        .assert_eq(&story.lock());
    }

    /// Waits, as the gates do, for something that never comes.
    struct Slow(Arc<Urgency>);

    impl Resident for Slow {
        fn opens(&self, plan: &Plan) {
            if plan.snapshot.epoch() == 2 {
                self.0.wait(|| false, Duration::MAX);
            }
        }
    }

    #[test]
    fn a_rollback_waits_for_nothing_that_a_publish_waits_for() {
        let (ends, _heard) = ends();
        let context = context(ends);
        let nothing = Snapshot::compose(0, Vec::new()).expect("no routes, no clash");
        let slot = Arc::new(Slot::new(Arc::new(nothing)));
        let urgency = Arc::clone(&context.urgency);
        let residents: Vec<Arc<dyn Resident>> = vec![Arc::new(Slow(Arc::clone(&urgency)))];
        let cutover = Cutover::new(Arc::clone(&slot), Rollout::new(4), residents, urgency);
        let (rules, now) = (Rules { time: Duration::ZERO, requests: 0, ..Rules::PRODUCTION }, Instant::now());
        let publish = |generation: &Arc<Generation>| {
            let candidates = [setup(generation)];
            cutover.perform(|rollout| rollout.publish(&candidates, &[], Origin::Path, &rules, now)).expect("no routes, no clash");
        };
        let [one, two] = [1, 2].map(|number| generation("a", number, &context));
        publish(&one);
        std::thread::scope(|scope| {
            scope.spawn(|| publish(&two));
            // Before or while the other one waits: it ends either way.
            while slot.now().epoch() < 3 {
                let _ = cutover.perform_at_once(|rollout| rollout.breach(two.key(), now, now).ok_or(()));
                std::thread::yield_now();
            }
        });
        assert_eq!(shown(&slot.now()), "a=1");
    }
}

#[cfg(all(test, midair_loom))]
mod model {
    use loom::sync::Mutex;
    use loom::sync::atomic::{AtomicU64, Ordering};
    use loom::thread;

    use std::time::Duration;

    use super::{Arc, By, Cutover, Generation, Plan, Resident, Rollout, Slot, Snapshot};
    use crate::live::lease::{Lease, Leases, Named};
    use crate::live::probation::Rules;
    use crate::live::rollout::Origin;
    use crate::live::rollout::tests::{ended, ends, generation, setup, shown};
    use std::time::Instant;

    /// What was said to be drained so far, by whoever looks.
    struct Told {
        heard: std::sync::mpsc::Receiver<crate::live::generation::Ended>,
        all: Vec<String>,
    }

    fn times(told: &Mutex<Told>, generation: &str) -> usize {
        let mut told = told.lock().expect("a model breaks where it panics");
        let new = ended(&told.heard);
        told.all.extend(new);
        told.all.iter().filter(|ended| *ended == generation).count()
    }

    /// What a lease on each epoch sees, and how often the term of that generation may have ended by then: in epoch 3 generation 1 serves
    /// its second term.
    fn is_one_snapshot(lease: &Lease<Snapshot>, told: &Mutex<Told>) {
        let (epoch, serves) = (lease.snapshot().epoch(), shown(lease.snapshot()));
        let most = match (epoch, serves.as_str()) {
            (1, "a=1 b=1") | (2, "a=2 b=1") => 0,
            (3, "a=1 b=1") => 1,
            other => panic!("no such moment: {other:?}"),
        };
        let ended = [times(told, &serves[..3]), times(told, "b=1")];
        assert!(ended[0] <= most && ended[1] == 0, "{serves} drained {ended:?} while epoch {epoch} is held");
    }

    /// A resident that sees to the order of the phases, and tells calls of two of them: these alone are moments for the model.
    #[derive(Default)]
    struct Witness {
        phases: std::sync::Mutex<Vec<(u64, u32)>>,
        /// The last epoch whose calls find all that they need.
        opened: AtomicU64,
        /// The last epoch that told others to end.
        ending: AtomicU64,
    }

    const SERVING: u32 = 4;
    const SETTLED: u32 = 5;
    const ENDING: u32 = 6;

    impl Witness {
        fn reaches(&self, plan: &Plan, phase: u32) {
            let mut phases = self.phases.lock().expect("a model breaks where it panics");
            let epoch = plan.snapshot.epoch();
            let last = phases.iter().filter(|(of, _)| *of == epoch).map(|(_, phase)| *phase).max().unwrap_or_default();
            let next = if plan.by == By::Publish && last == SERVING { ENDING } else { last + 1 };
            assert_eq!(phase, next, "behind {last}");
            assert!(phases.last().is_none_or(|(of, _)| *of <= epoch), "one cutover ends before the next begins");
            phases.push((epoch, phase));
        }
    }

    impl Resident for Witness {
        fn before_store(&self, plan: &Plan) {
            self.reaches(plan, 1);
        }

        fn opens(&self, plan: &Plan) {
            self.reaches(plan, 2);
            self.opened.store(plan.snapshot.epoch(), Ordering::Release);
        }

        fn left(&self, plan: &Plan) {
            assert!(plan.leaves.iter().all(|old| !old.serves()), "what left knows it");
            self.reaches(plan, 3);
        }

        fn serving(&self, plan: &Plan) {
            self.reaches(plan, SERVING);
        }

        fn settled(&self, back: &Arc<Generation>) {
            assert!(back.is_committed());
            // Only the rollback, in epoch 3, has this phase here.
            self.phases.lock().expect("a model breaks where it panics").push((3, SETTLED));
        }

        fn ending(&self, plan: &Plan) {
            self.reaches(plan, ENDING);
            self.ending.store(plan.snapshot.epoch(), Ordering::Release);
        }

        fn entered(&self, plan: &Plan) {
            assert!(plan.entering().all(|new| new.serves()), "what enters knows it");
            self.reaches(plan, 7);
        }

        fn begins(&self, plan: &Plan) {
            self.reaches(plan, 8);
        }
    }

    fn call(slot: &Slot, leases: &Arc<Leases>, told: &Mutex<Told>, witness: &Witness) {
        let lease = slot.admit();
        let epoch = lease.snapshot().epoch();
        assert!(
            epoch == 1 || witness.opened.load(Ordering::Acquire) >= epoch,
            "what was admitted finds queues, and what init wrote"
        );
        let ending = witness.ending.load(Ordering::Acquire);
        assert!(slot.now().epoch() >= ending, "nothing is told to end before other code serves");
        is_one_snapshot(&lease, told);
        let named = Named { generation: 1, epoch: lease.snapshot().epoch(), handler: 0 };
        let lease = lease.pin(leases, named);
        let nested = lease.nest(leases, named);
        assert_eq!(lease.snapshot().epoch(), nested.snapshot().epoch());
        drop(lease);
        is_one_snapshot(&nested, told);
    }

    /// A publish of one of two plugins and the rollback of it, while calls are admitted: each call holds one snapshot to its end, no generation is said to be
    /// drained while a call is held that was admitted to that term of it, and each term ends once.
    #[test]
    fn a_call_keeps_the_terms_that_it_was_admitted_to_through_publish_and_rollback() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let (ends, heard) = ends();
            let leases = Leases::new();
            let told = Arc::new(Mutex::new(Told { heard, all: Vec::new() }));
            let (rules, now) = (Rules { time: Duration::ZERO, requests: 0, ..Rules::PRODUCTION }, Instant::now());
            let mut rollout = Rollout::new(4);
            let both = [setup(&generation("a", 1, &ends)), setup(&generation("b", 1, &ends))];
            let first = rollout.publish(&both, &[], Origin::Path, &rules, now).expect("no routes").snapshot;
            first.begin();
            both.iter().for_each(|both| both.generation.enters(1));
            drop(both);
            let slot = Arc::new(Slot::new(first));
            rollout.commit(&rules, now);
            let witness = Arc::new(Witness::default());
            let cutover = Cutover::new(
                Arc::clone(&slot),
                rollout,
                vec![Arc::<Witness>::clone(&witness) as Arc<dyn Resident>],
                Arc::default(),
            );
            let calls: Vec<_> = (0..2)
                .map(|_| {
                    let (slot, leases) = (Arc::clone(&slot), Arc::clone(&leases));
                    let (told, witness) = (Arc::clone(&told), Arc::clone(&witness));
                    thread::spawn(move || call(&slot, &leases, &told, &witness))
                })
                .collect();
            // As the pipeline does, and the supervisor.
            let next = [setup(&generation("a", 2, &ends))];
            let publish = |rollout: &mut Rollout| rollout.publish(&next, &[], Origin::Path, &rules, now);
            drop(cutover.perform(publish).expect("no routes"));
            let key = next[0].generation.key();
            drop(next);
            drop(cutover.perform(|rollout| rollout.breach(key, now, now).ok_or(())).expect("a way back"));
            calls.into_iter().for_each(|call| call.join().expect("a call"));
            let all = || ["a=1", "a=2", "b=1"].map(|generation| times(&told, generation));
            assert_eq!(all(), [1, 1, 0], "what was replaced is drained, once, and what wasn't is not");
            drop((slot, cutover));
            assert_eq!(all(), [2, 1, 1]);
        });
    }
}
