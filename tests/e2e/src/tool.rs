//! The host tool as a user calls it: messages, exit codes, files, and that it leaves no emulator behind.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use gnomon_host::workspace;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("tool::help", help),
        trial("tool::usage-errors", usage_errors),
        trial("tool::refused-images", refused_images),
        trial("tool::refused-words", refused_words),
        trial("tool::missing-cpu-feature", missing_cpu_feature),
        trial("tool::guest-status", guest_status),
        trial("tool::emulator-failure", emulator_failure),
        trial("tool::streams", streams),
        trial("tool::trace", trace),
        trial("tool::profile", profile),
        trial("kernel::selftest::qemu", || selftest("qemu", "all", 0, &["reason=selftest"])),
        trial("kernel::selftest::bochs", || selftest("bochs", "all", 0, &["reason=selftest"])),
        trial("kernel::panic::qemu", || {
            selftest("qemu", "panic", 3, &["asked for by the command line", "selftest::run"])
        }),
        trial("kernel::overflow::qemu", || selftest("qemu", "overflow", 3, &["the host's stack overflowed"])),
        trial("kernel::overflow::bochs", || selftest("bochs", "overflow", 3, &["the host's stack overflowed"])),
        trial("tool::timeout::qemu", || timeout("qemu")),
        trial("tool::timeout::bochs", || timeout("bochs")),
        trial("tool::signal::int", || signal(Signal::INT, Some(130))),
        trial("tool::signal::term", || signal(Signal::TERM, Some(130))),
        trial("tool::signal::kill", || signal(Signal::KILL, None)),
    ]
}

/// `jmp $`, as a flat image: the guest that never ends.
const SPIN: [u8; 2] = [0xeb, 0xfe];
/// `mov $1, %al; out %al, $0xf4`: the guest that ends with status 1.
const STATUS_1: [u8; 4] = [0xb0, 0x01, 0xe6, 0xf4];

/// A folder for one test, where the tool puts its temporary files as well.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("gnomon-e2e-").tempdir()?))
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> anyhow::Result<String> {
        let path = self.0.path().join(name);
        fs::File::create(&path)?.write_all(content)?;
        Ok(path.display().to_string())
    }

    /// A description of a flat guest.
    pub(crate) fn flat(&self, name: &str, content: &[u8]) -> anyhow::Result<String> {
        Ok(format!("name={name} kernel={} format=flat", self.file(name, content)?))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(workspace::root().join("scripts/gnomon"));
        command.args(arguments).env("TMPDIR", self.0.path()).env("GNOMON_NO_INSTALL", "1").current_dir(self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.command(arguments).output().context("cannot run scripts/gnomon")
    }

    /// Runs the tool and wants this exit code, and these words on stderr.
    pub(crate) fn expect(&self, arguments: &[&str], code: i32, words: &[&str]) -> anyhow::Result<()> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let line = arguments.join(" ");
        ensure!(
            output.status.code() == Some(code),
            "gnomon {line}: {}, expected {code}; it said:\n{said}",
            output.status
        );
        for word in words {
            ensure!(said.contains(word), "gnomon {line}: expected `{word}` on stderr, it said:\n{said}");
        }
        Ok(())
    }

    /// Whether a process works in this folder: that is an emulator.
    fn has_emulator(&self) -> anyhow::Result<bool> {
        let here = self.0.path().canonicalize()?;
        let inside = |cwd: &Path| cwd.starts_with(&here) && cwd != here;
        Ok(fs::read_dir("/proc")?
            .flatten()
            .any(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| inside(&cwd))))
    }

    fn wait_for_emulator(&self, wanted: bool, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while self.has_emulator()? != wanted {
            ensure!(
                Instant::now() < deadline,
                "{}",
                if wanted { "no emulator came" } else { "an emulator was left behind" }
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// The kernel's own test of traps and last gates; and that a host fault gives a report and its own exit code.
fn selftest(machine: &str, how: &str, code: i32, words: &[&str]) -> anyhow::Result<()> {
    let place = Place::new()?;
    let set = format!("selftest={how}");
    place.expect(&["run", "timer", "--machine", machine, "--set", &set, "--timeout", "120"], code, words)
}

fn help() -> anyhow::Result<()> {
    let place = Place::new()?;
    for command in ["demo", "run", "trace", "test", "doctor", "build", "guests"] {
        let output = place.run(&[command, "--help"])?;
        ensure!(output.status.success(), "gnomon {command} --help: {}", output.status);
        ensure!(String::from_utf8_lossy(&output.stdout).contains("Usage:"), "gnomon {command} --help says nothing");
    }
    Ok(())
}

fn usage_errors() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.expect(&[], 2, &["Usage:"])?;
    place.expect(&["nonsense"], 2, &["nonsense"])?;
    place.expect(&["run"], 2, &["expected a guest"])?;
    place.expect(&["run", "no-such-file"], 2, &["no-such-file"])?;
    place.expect(&["run", "timer", "-m", "lots"], 2, &["32M"])?;
    place.expect(&["run", "timer", "--machine", "bochs", "--boot", "kernel"], 2, &["QEMU only"])?;
    place.expect(&["run", "--guest", "name=a"], 2, &["kernel=FILE"])?;
    place.expect(&["trace", "no-such-file"], 2, &["no-such-file"])?;
    let text = place.file("text", b"this is not a trace, but it is longer than a record")?;
    place.expect(&["trace", &text], 2, &["not a trace"])
}

/// Each is one clear line of the hypervisor that names what was expected.
fn refused_images() -> anyhow::Result<()> {
    let place = Place::new()?;
    let text = place.file("text", b"this is not a kernel\n")?;
    let empty = place.file("empty", b"")?;
    let elf = place.file("cut.elf", b"\x7fELF\x01\x01\x01")?;
    for image in [&text, &empty, &elf] {
        place.expect(&["run", image, "--timeout", "60"], 2, &["[gnomon error]", "expected", "code=0x12"])?;
    }
    let mut sector = [0; 512];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let disk = place.file("disk.img", &sector)?;
    place.expect(&["run", &disk, "--timeout", "60"], 2, &["boot sector", "--disk"])?;
    place.expect(&["run", "timer", "-m", "64K", "--timeout", "60"], 2, &["[gnomon error]", "expected", "code=0x12"])
}

fn refused_words() -> anyhow::Result<()> {
    let place = Place::new()?;
    let refused = |arguments: &[&str], word: &str| {
        let arguments = [&["run", "--timeout", "60"], arguments].concat();
        place.expect(&arguments, 2, &["[gnomon error]", word, "expected", "code=0x12"])
    };
    refused(&["timer", "--set", "nonsense=1"], "nonsense")?;
    refused(&["timer", "--log", "loud"], "loud")?;
    refused(&["--guest", "name=a kernel=timer colour=red"], "colour")?;
    refused(&["--guest", "name=a kernel=timer time=warped"], "warped")?;
    refused(&["--guest", "name=a kernel=timer", "--guest", "name=a kernel=timer"], "two guests are called a")
}

/// One line says what is missing and which model has it.
fn missing_cpu_feature() -> anyhow::Result<()> {
    Place::new()?.expect(
        &["run", "timer", "--cpu", "pentium3", "--boot", "grub", "--timeout", "60"],
        2,
        &["long mode", "code=0x12"],
    )
}

fn guest_status() -> anyhow::Result<()> {
    let place = Place::new()?;
    let guest = place.flat("status", &STATUS_1)?;
    place.expect(&["run", "--guest", &guest, "--timeout", "60"], 1, &["ended with status 1", "code=0x11"])?;
    place.expect(&["run", "--guest", &guest, "--timeout", "60", "--qemu-exit"], 3, &["status=1"])?;
    place.expect(&["run", "--guest", &guest, "--timeout", "60", "--machine", "bochs"], 1, &["code=0x11"])
}

fn emulator_failure() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.expect(&["run", "timer", "--bare", "--cpu", "nonsense"], 5, &["nonsense"])?;
    place.expect(&["run", "timer", "--bare", "--cpu", "nonsense", "--machine", "bochs"], 5, &["cpu"])
}

/// The guest's bytes go to stdout and nothing else does.
fn streams() -> anyhow::Result<()> {
    let place = Place::new()?;
    let bare = place.run(&["run", "privileged", "--bare", "--timeout", "60"])?;
    let gnomon = place.run(&["run", "privileged", "--timeout", "60"])?;
    ensure!(gnomon.status.success(), "{}: {}", gnomon.status, String::from_utf8_lossy(&gnomon.stderr));
    crate::compare::same(&bare.stdout, &gnomon.stdout)?;
    ensure!(String::from_utf8_lossy(&gnomon.stderr).contains("[gnomon exit] code=0x10"), "no exit line on stderr");
    Ok(())
}

/// A trace is complete, and text and JSON come from the same records.
fn trace() -> anyhow::Result<()> {
    let place = Place::new()?;
    let run = |file: &str| {
        let output = place.run(&["run", "demand-paging", "--icount", "--timeout", "60", "--trace", file])?;
        ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(fs::read(place.0.path().join(file))?)
    };
    let json = run("trace.json")?;
    let records: Vec<Value> = String::from_utf8(json)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for kind in
        ["header", "vm-start", "exit", "walk", "fill", "pt-write", "set-cr3", "inject", "resume", "vm-stop", "counter"]
    {
        ensure!(records.iter().any(|record| record["kind"] == kind), "no {kind} record");
    }
    ensure!(records.iter().all(|record| record["kind"] != "lost"), "records were lost");
    check_counters(&records)?;
    run("trace.bin")?;
    let text = place.run(&["trace", "trace.bin", "--symbols", "demand-p=demand-paging"])?;
    let lines = String::from_utf8(text.stdout)?.lines().count();
    ensure!(lines == records.len(), "{lines} lines, but {} records", records.len());
    Ok(())
}

/// QEMU counts the hypervisor's instructions, and those of an operation are what the guest says.
fn profile() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.expect(&["run", "timer", "--icount", "--timeout", "60", "--profile", "all.txt"], 0, &["wrote all.txt"])?;
    let all = fs::read_to_string(place.0.path().join("all.txt"))?;
    ensure!(all.contains("gnomon_vmm::run::Guest::turn"), "{all}");
    let output = place.run(&["bench", "profile", "cpuid", "--rounds", "4"])?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let after = |start: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.split_once(start))?;
        line.1.split_whitespace().next()?.parse().ok()
    };
    let (counted, summed) = (after("prefetch: ").unwrap_or(0.0), last_sum(&text).unwrap_or(0.0));
    // The harness around a round has its part.
    ensure!(counted > 100.0 && summed > counted && summed < counted + 200.0, "{counted} and {summed} in:\n{text}");
    place.expect(&["bench", "profile", "nosuch"], 2, &["has no operation `nosuch`"])
}

fn last_sum(text: &str) -> Option<f64> {
    text.lines().last()?.split_whitespace().next()?.parse().ok()
}

/// The final counters are those of the exits in the trace.
fn check_counters(records: &[Value]) -> anyhow::Result<()> {
    for counter in records.iter().filter(|record| record["kind"] == "counter") {
        let reason = &counter["reason"];
        let seen =
            records.iter().filter(|record| record["kind"] == "resume" && record["reason"] == *reason).count() as u64;
        let counted = counter["count"].as_u64().unwrap_or(0);
        // The exit that ended the guest has no resume.
        ensure!(counted == seen || counted == seen + 1, "{reason}: counted {counted}, the trace has {seen}");
    }
    Ok(())
}

fn timeout(machine: &str) -> anyhow::Result<()> {
    let place = Place::new()?;
    let guest = place.flat("spin", &SPIN)?;
    let start = Instant::now();
    place.expect(&["run", "--guest", &guest, "--machine", machine, "--timeout", "4"], 4, &["stopped after 4 s"])?;
    ensure!(start.elapsed() >= Duration::from_secs(4), "too early");
    place.wait_for_emulator(false, Duration::from_secs(2))
}

fn signal(signal: Signal, code: Option<i32>) -> anyhow::Result<()> {
    let place = Place::new()?;
    let guest = place.flat("spin", &SPIN)?;
    let mut tool = Guard(place.command(&["run", "--guest", &guest, "--timeout", "100"]).spawn()?);
    place.wait_for_emulator(true, Duration::from_secs(60))?;
    kill_process(Pid::from_child(&tool.0), signal)?;
    let status = tool.0.wait()?;
    match code {
        Some(code) => ensure!(status.code() == Some(code), "{status}, expected {code}"),
        None if status.signal().is_none() => bail!("{status}, expected a death by signal"),
        None => {}
    }
    place.wait_for_emulator(false, Duration::from_secs(5))
}

/// A tool that does not outlive its test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
