//! Does the soak program still soak?

use midair_tests::cargo;
use midair_tests::soak::{Plan, soak};

#[test]
fn g1_g2_ten_swaps_under_load_lose_mix_and_leave_behind_nothing() {
    // How long answers take says nothing on a machine that runs tests.
    let args = ["--breach-latency", "1000000"].map(str::to_owned).to_vec();
    let plan = Plan { connections: 16, args, ..Plan::new(10, 200) };
    let report = soak(cargo::midair(), &plan, &mut |_| {});
    assert_eq!((report.swaps, report.lost, report.mixed), (10, 0, 0), "{report}");
    assert!(report.requests >= 10, "{report}");
    assert_eq!(report.wrong, Vec::<String>::new(), "{report}");
}
