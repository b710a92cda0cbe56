//! What is typed reaches the guest: every byte, in order, at the guest's pace, from a pipe and from a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use gnomon_guests::{GUESTS, Guest, Kind};
use gnomon_host::image::Payload;
use gnomon_host::status::Status;
use gnomon_host::{run, workspace};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::tcgetattr;

use crate::machine::{self, Host};
use crate::trial;

/// Ends the guest `echo`.
const END: u8 = 4;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for guest in GUESTS.iter().filter(|guest| guest.kind == Kind::Echo) {
        for host in Host::BOTH {
            trials.push(trial(format!("console::bare::{}", host.name()), move || echo(host, guest, true)));
            trials.push(trial(format!("console::gnomon::{}", host.name()), move || echo(host, guest, false)));
        }
        trials.push(trial("console::first-guest-listens", move || first_listens(guest)));
        trials.push(trial("console::pipe", move || pipe(guest)));
        trials.push(trial("console::terminal::escape", || terminal(Way::Escape)));
        trials.push(trial("console::terminal::end", || terminal(Way::End)));
        trials.push(trial("console::terminal::signal", || terminal(Way::Signal)));
    }
    trials
}

/// All bytes but the end, many times.
fn bytes(rounds: usize) -> Vec<u8> {
    let all: Vec<u8> = (0..=255).filter(|&byte| byte != END).collect();
    all.repeat(rounds)
}

fn echo(host: Host, guest: &'static Guest, bare: bool) -> anyhow::Result<()> {
    // Bochs' UART sends 11 thousand bytes in a second of its own time, which is not ours.
    let typed = bytes(if host == Host::Bochs { 8 } else { 40 });
    let described = machine::describe(guest, "")?;
    let guests = std::slice::from_ref(&described);
    let (payload, memory) = if bare {
        (Payload::bare(&described)?, described.memory)
    } else {
        (Payload::gnomon(machine::kernel()?, "log=info".into(), guests), run::host_memory(guests))
    };
    let script = [("ready\n", [&typed[..], &[END]].concat())];
    let script: Vec<(&str, &[u8])> = script.iter().map(|(text, answer)| (*text, &answer[..])).collect();
    let report = machine::converse(&host.machine(memory), &payload, bare, &script)?;
    let judge = || {
        crate::compare::same(&[b"ready\n", &typed[..]].concat(), &report.output)?;
        ensure!(report.status == Status::Ok, "expected status 0");
        Ok(())
    };
    judge().with_context(|| report.tail())
}

/// Of several guests the first gets the input, and when it has ended the next gets what is left of it.
fn first_listens(guest: &'static Guest) -> anyhow::Result<()> {
    let named =
        |name: &str| machine::describe(guest, "").map(|guest| gnomon_host::guest::Guest { name: name.into(), ..guest });
    let guests = [named("first")?, named("second")?];
    let payload = Payload::gnomon(machine::kernel()?, "log=info".into(), &guests);
    let script: [(&str, &[u8]); 2] = [("ready", b""), ("ready", b"one\n\x04two\n\x04")];
    let report = machine::converse(&Host::Qemu.machine(run::host_memory(&guests)), &payload, false, &script)?;
    let said = String::from_utf8_lossy(&report.output);
    ensure!(
        said.contains("first| one") && said.contains("second| two") && report.status == Status::Ok,
        "{}",
        report.tail()
    );
    Ok(())
}

fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::root().join("scripts/gnomon"));
    command.args(["run", "echo", "--timeout", "120"]).args(arguments).env("GNOMON_NO_INSTALL", "1");
    command
}

/// More than all buffers on the way hold.
fn pipe(_: &'static Guest) -> anyhow::Result<()> {
    let mut child = tool(&["--bare"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let typed = bytes(800);
    let mut stdin = child.stdin.take().context("no stdin")?;
    let all = [&typed[..], &[END]].concat();
    let typing = std::thread::spawn(move || stdin.write_all(&all));
    let output = child.wait_with_output()?;
    ensure!(typing.join().is_ok_and(|result| result.is_ok()), "the tool has not read everything");
    ensure!(output.status.success(), "{}", output.status);
    // What comes before the guest sets its UART up is not judged; everything behind that is there.
    let got = output.stdout.strip_prefix(b"ready\n").context("no first line")?;
    ensure!(typed.ends_with(got) && typed.len() - got.len() <= 16, "{} of {} bytes came", got.len(), typed.len());
    Ok(())
}

/// How a session at a terminal ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Escape,
    End,
    Signal,
}

/// Control characters, UTF-8 and the escape key pass; and whichever way it ends, the terminal is as it was.
fn terminal(way: Way) -> anyhow::Result<()> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = File::options().read(true).write(true).open(name.to_str()?)?;
    let before = format!("{:?}", tcgetattr(&slave)?);
    // `setsid --ctty` makes the terminal the tool's own.
    let gnomon = tool(&[]);
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(gnomon.get_program()).args(gnomon.get_args()).env("GNOMON_NO_INSTALL", "1");
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?).process_group(0);
    let mut child = command.spawn()?;
    let mut screen = Screen { master: File::from(master), seen: Vec::new() };
    let judge = |screen: &mut Screen| {
        screen.wait_for("ready")?;
        screen.master.write_all("grüße\x03\x1a\x01\x01!\n".as_bytes())?;
        screen.wait_for("grüße\x03\x1a\x01!")?;
        screen.master.write_all(b"\x01h")?;
        screen.wait_for("Ctrl-A X")?;
        ensure!(format!("{:?}", tcgetattr(&slave)?) != before, "the terminal is not raw");
        match way {
            Way::Escape => screen.master.write_all(b"\x01x")?,
            Way::End => screen.master.write_all(&[END])?,
            Way::Signal => end_tool(Pid::from_child(&child))?,
        }
        Ok(())
    };
    let result = judge(&mut screen);
    if result.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    result.with_context(|| String::from_utf8_lossy(&screen.seen).into_owned())?;
    let code = if way == Way::Signal { 130 } else { 0 };
    ensure!(status.code() == Some(code), "{status}, expected {code}");
    ensure!(format!("{:?}", tcgetattr(&slave)?) == before, "the terminal is not as it was");
    Ok(())
}

/// Sends a signal to the child of `setsid`.
fn end_tool(setsid: Pid) -> anyhow::Result<()> {
    let id = setsid.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    for child in children.split_ascii_whitespace() {
        let child = Pid::from_raw(child.parse()?).context("a process id")?;
        kill_process(child, Signal::TERM)?;
    }
    Ok(())
}

/// The other side of a terminal.
struct Screen {
    master: File,
    seen: Vec<u8>,
}

impl Screen {
    fn wait_for(&mut self, text: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut buffer = [0; 4096];
        loop {
            let found = self.seen.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                self.seen.drain(..at + text.len());
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "`{text}` has not come");
            let count = self.master.read(&mut buffer)?;
            self.seen.extend_from_slice(&buffer[..count]);
        }
    }
}
