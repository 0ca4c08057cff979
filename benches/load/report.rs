//! What is printed: a table for people, or a JSON line a figure.

use std::fs;

use crate::Outcome;

/// Where figures go.
pub struct Report {
    json: bool,
}

impl Report {
    /// Prints lines of JSON, or of text.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// A figure; with its limit, their ratio too.
    pub fn figure(&self, figure: &str, value: f64, unit: &str, limit: Option<f64>) {
        let ratio = limit.map(|limit| value / limit);
        if self.json {
            let line = serde_json::json!({ "figure": figure, "value": value, "unit": unit, "limit": limit, "ratio": ratio });
            println!("{line}");
        } else if let (Some(limit), Some(ratio)) = (limit, ratio) {
            println!("{figure:<68} {value:>10.2} {unit:<5} {limit:>8.2} {unit:<5} ratio {ratio:.2}");
        } else {
            println!("{figure:<68} {value:>10.2} {unit}");
        }
    }

    /// Cores and load: what the rates depend on.
    pub fn machine(&self) -> Outcome<()> {
        let cores = std::thread::available_parallelism()?.get();
        self.figure("cores", f64::from(u32::try_from(cores)?), "", None);
        let load = fs::read_to_string("/proc/loadavg")?;
        let load: f64 = load.split(' ').next().ok_or("no load")?.parse()?;
        self.figure("load average before the run", load, "", None);
        Ok(())
    }
}
