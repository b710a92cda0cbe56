//! Boots guests, bare or under Gnomon, and keeps everything they say.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use gnomon_guests::Guest as Listed;
use gnomon_host::cli::{Boot, MachineKind};
use gnomon_host::console::Piece;
use gnomon_host::guest::Guest;
use gnomon_host::image::Payload;
use gnomon_host::machine::QUICK_IPS;
use gnomon_host::machine::{Ending, Input, Machine, RunFolder, Typed};
use gnomon_host::status::Status;
use gnomon_host::{build, run};

/// A run that takes longer has failed. Generous, because the machine that tests may be busy.
const LIMIT: Duration = Duration::from_secs(240);

/// A machine that tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// QEMU with its own loader, and instructions as clock.
    Qemu,
    /// QEMU with GRUB, and the real time as clock.
    QemuGrub,
    /// Bochs with GRUB.
    Bochs,
}

impl Host {
    /// The machines that run every guest.
    pub const BOTH: [Self; 2] = [Self::Qemu, Self::Bochs];

    /// For names of tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::QemuGrub => "qemu-grub",
            Self::Bochs => "bochs",
        }
    }

    /// The machine, with this memory in bytes.
    #[must_use]
    pub fn machine(self, memory: u64) -> Machine {
        Machine {
            kind: if self == Self::Bochs { MachineKind::Bochs } else { MachineKind::Qemu },
            boot: if self == Self::Qemu { Boot::Kernel } else { Boot::Grub },
            memory_mib: memory >> 20,
            cpu: None,
            ips: Some(QUICK_IPS),
            // Time that follows instructions keeps timer tests independent of how busy the testing machine is.
            icount: self == Self::Qemu,
            timeout: Some(LIMIT),
            trace: false,
            profile: None,
        }
    }
}

/// What a run left.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it means.
    pub status: Status,
    /// How the machine ended.
    pub ending: Ending,
    /// Everything the guest printed.
    pub output: Vec<u8>,
    /// Everything the hypervisor printed.
    pub hypervisor: Vec<String>,
}

impl Report {
    /// The last lines of both, for a failure's message.
    #[must_use]
    pub fn tail(&self) -> String {
        let output = String::from_utf8_lossy(&self.output);
        let last = |lines: Vec<&str>| lines[lines.len().saturating_sub(25)..].join("\n  ");
        format!(
            "ended: {:?}, status {:?}\n-- guest (its last lines):\n  {}\n-- hypervisor:\n  {}",
            self.ending,
            self.status,
            last(output.lines().collect()),
            last(self.hypervisor.iter().map(String::as_str).collect()),
        )
    }
}

/// The image of a guest. The first caller builds them all.
///
/// # Errors
/// If they cannot be built.
pub fn image(name: &str) -> anyhow::Result<PathBuf> {
    static IMAGES: OnceLock<Result<HashMap<&'static str, PathBuf>, String>> = OnceLock::new();
    let images = IMAGES.get_or_init(|| {
        let built = build::guests().map_err(|error| format!("{error:#}"))?;
        Ok(built.into_iter().map(|(guest, path)| (guest.name, path)).collect())
    });
    let images = images.as_ref().map_err(|error| anyhow!("{error}"))?;
    images.get(name).cloned().with_context(|| format!("no guest {name}"))
}

/// Gnomon itself.
///
/// # Errors
/// If it cannot be built.
pub fn kernel() -> anyhow::Result<PathBuf> {
    static KERNEL: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    KERNEL
        .get_or_init(|| build::kernel().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!("{error}"))
}

/// A listed guest, as the host tool describes guests.
///
/// # Errors
/// If it cannot be built.
pub fn describe(listed: &Listed, arguments: &str) -> anyhow::Result<Guest> {
    let image = image(listed.name)?;
    let memory = u64::from(listed.memory) << 20;
    Ok(Guest { memory, arguments: arguments.into(), ..Guest::new(listed.name, &image) })
}

/// Runs a guest bare. Runs are remembered, since a comparison and a test of its own want the same one.
///
/// # Errors
/// If the machine cannot be started.
pub fn bare(host: Host, listed: &'static Listed, arguments: &str) -> anyhow::Result<Report> {
    type Slot = Arc<OnceLock<Result<Report, String>>>;
    type Slots = HashMap<(Host, &'static str, String), Slot>;
    static DONE: Mutex<Option<Slots>> = Mutex::new(None);
    let slot = {
        let mut done = DONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (host, listed.name, arguments.to_owned());
        Arc::clone(done.get_or_insert_default().entry(key).or_default())
    };
    let run = || {
        let guest = describe(listed, arguments)?;
        boot(&host.machine(guest.memory), &Payload::bare(&guest)?, true, None)
    };
    slot.get_or_init(|| run().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!("{error}"))
}

/// Runs guests under Gnomon. `words` is the hypervisor's command line; with `trace=on` the trace goes to a file that nobody reads.
///
/// # Errors
/// If something cannot be built or the machine cannot be started.
pub fn gnomon(host: Host, guests: &[Guest], words: &str) -> anyhow::Result<Report> {
    let payload = Payload::gnomon(kernel()?, words.into(), guests);
    let trace = words.split(' ').any(|word| word == "trace=on");
    boot(&Machine { trace, ..host.machine(run::host_memory(guests)) }, &payload, false, None)
}

/// The same until the hypervisor prints a line with `text` in it.
///
/// # Errors
/// As for [`gnomon`].
pub fn gnomon_until(host: Host, guests: &[Guest], text: &str) -> anyhow::Result<Report> {
    let payload = Payload::gnomon(kernel()?, "log=info".into(), guests);
    boot(&host.machine(run::host_memory(guests)), &payload, false, Some(text))
}

/// Runs a machine until the guest has printed `text`.
///
/// # Errors
/// If the machine cannot be started, or the text never came.
pub fn guest_until(machine: &Machine, payload: &Payload, bare: bool, text: &str) -> anyhow::Result<Report> {
    let folder = RunFolder::new()?;
    let (mut output, mut hypervisor, mut seen) = (Vec::<u8>::new(), Vec::new(), false);
    let outcome = run::execute(machine, payload, bare, &folder, &mut |piece| {
        match piece {
            Piece::Guest(bytes) => {
                let from = output.len().saturating_sub(text.len());
                output.extend_from_slice(bytes);
                seen |= output[from..].windows(text.len()).any(|window| window == text.as_bytes());
            }
            Piece::Line(line) => hypervisor.push(format!("[{}] {}", line.level, line.text)),
        }
        if seen { Err(std::io::Error::other("seen enough")) } else { Ok(()) }
    });
    if !seen {
        let outcome = outcome?;
        let report = Report { status: outcome.status, ending: outcome.ending, output, hypervisor };
        return Err(anyhow!("the guest has not printed `{text}`\n{}", report.tail()));
    }
    Ok(Report { status: Status::Interrupted, ending: Ending::Interrupted, output, hypervisor })
}

/// What to type when: after each text that the guest prints, the bytes that answer it.
pub type Script<'a> = &'a [(&'a str, &'a [u8])];

/// Runs a guest, bare or under Gnomon, and types: each answer when its text has come, and the text is looked for behind the one
/// before. The run ends with an error if the guest has ended before all texts came.
///
/// # Errors
/// If the machine cannot be started, or a text never came.
pub fn converse(machine: &Machine, payload: &Payload, bare: bool, script: Script<'_>) -> anyhow::Result<Report> {
    let folder = RunFolder::new()?;
    let (typist, input) = Input::channel();
    let (mut output, mut hypervisor) = (Vec::<u8>::new(), Vec::new());
    let (mut rest, mut from) = (script.iter(), 0);
    let mut next = rest.next();
    // Long answers wait for the guest, so another thread types them.
    let (answers, to_type) = std::sync::mpsc::channel::<Vec<u8>>();
    let typing = std::thread::spawn(move || {
        for answer in to_type {
            if typist.send(Typed::Bytes(answer)).is_err() {
                return;
            }
        }
    });
    let outcome = run::converse(machine, payload, bare, &folder, input, &mut |piece| {
        match piece {
            Piece::Guest(bytes) => output.extend_from_slice(bytes),
            Piece::Line(line) => hypervisor.push(format!("[{}] {}", line.level, line.text)),
        }
        while let Some((text, answer)) = next {
            let found = output[from..].windows(text.len()).position(|window| window == text.as_bytes());
            let Some(at) = found else {
                from = output.len().saturating_sub(text.len()).max(from);
                break;
            };
            from += at + text.len();
            let _ = answers.send(answer.to_vec());
            next = rest.next();
        }
        Ok(())
    });
    drop(answers);
    let _ = typing.join();
    let outcome = outcome?;
    let report = Report { status: outcome.status, ending: outcome.ending, output, hypervisor };
    match next {
        None => Ok(report),
        Some((text, _)) => Err(anyhow!("the guest has not printed `{text}`\n{}", report.tail())),
    }
}

fn boot(machine: &Machine, payload: &Payload, bare: bool, until: Option<&str>) -> anyhow::Result<Report> {
    let folder = RunFolder::new()?;
    let (mut output, mut hypervisor, mut seen) = (Vec::new(), Vec::new(), false);
    let outcome = run::execute(machine, payload, bare, &folder, &mut |piece| {
        match piece {
            Piece::Guest(bytes) => output.extend_from_slice(bytes),
            Piece::Line(line) => {
                seen |= until.is_some_and(|text| line.text.contains(text));
                hypervisor.push(format!("[{}] {}", line.level, line.text));
            }
        }
        if seen { Err(std::io::Error::other("seen enough")) } else { Ok(()) }
    });
    if seen {
        return Ok(Report { status: Status::Interrupted, ending: Ending::Interrupted, output, hypervisor });
    }
    let outcome = outcome?;
    Ok(Report { status: outcome.status, ending: outcome.ending, output, hypervisor })
}
