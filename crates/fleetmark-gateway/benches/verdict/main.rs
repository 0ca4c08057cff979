//! What the gateway's own work costs, within one process: verdicts, and a snapshot read and held. The other half of
//! `scripts/bench`, in the same report.
//!
//! The snapshot is read in a process of its own, whose memory holds nothing else.

#[path = "../../../../benches/load/report.rs"]
#[expect(dead_code, reason = "the load benchmark tells of the machine")]
mod report;
mod snapshot;
mod verdict;

use report::Report;

/// Any error: a benchmark stops at the first.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    // `cargo bench` and `cargo test --benches` add flags of their own.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let report = Report::new(has("--json"));
    if let [mode, file] = arguments.as_slice()
        && mode == "--read-snapshot"
    {
        return snapshot::read(file);
    }
    verdict::run(&report)?;
    snapshot::run(if has("--short") { 1_000_000 } else { 10_000_000 }, &report)
}
