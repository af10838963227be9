//! The machine that is measured on, and what a process uses of it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use countersign_tests::Stopwatch;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::sample::{Sample, millis};

/// The processor, the number of cores, the kernel, and how long the disk takes to make a page durable:
/// a durable write cannot be faster than that.
pub(crate) fn description() -> String {
    let cpu = read_field("/proc/cpuinfo", "model name").unwrap_or_else(|| "an unknown processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let sync = sync_time().unwrap_or_else(|error| format!("unknown ({error})"));
    format!("{cpu}, {cores} cores, Linux {}; one page written and synced: {sync}", kernel.trim())
}

fn sync_time() -> Result<String> {
    let folder = tempfile::tempdir()?;
    let mut file = File::create(folder.path().join("page"))?;
    let mut sample = Sample::default();
    for _ in 0..200 {
        let watch = Stopwatch::start();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        sample.add(watch.elapsed());
    }
    Ok(format!("p50 {}, p99 {}", millis(sample.percentile(50)), millis(sample.percentile(99))))
}

/// The memory that a process has resident, in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let text = read_field(&format!("/proc/{pid}/status"), "VmRSS").context("the process has no VmRSS")?;
    let kib: u64 = text.trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

/// The size of a file in bytes; 0 if there is none.
pub(crate) fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len())
}

/// How many bytes each of `count` things takes.
#[expect(clippy::cast_precision_loss, reason = "the report has three digits")]
pub(crate) fn each(bytes: u64, count: usize) -> f64 {
    bytes as f64 / count as f64
}

/// The time that the threads of a process have run.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds: u64 = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended since.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let ran: u64 = text.split(' ').next().unwrap_or_default().parse().context("a malformed schedstat")?;
        nanoseconds += ran;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn read_field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Lets this process and those that it starts open as many files as it may; returns how many that is.
pub(crate) fn raise_file_limit() -> Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}
