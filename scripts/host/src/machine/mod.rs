//! Emulated machines: how each is started, watched and ended.

mod bochs;
mod child;
mod input;
mod monitor;
mod qemu;
mod tail;

pub use bochs::{CPU as BOCHS_CPU, QUICK_IPS, ROM_FILES};
pub use child::{Child, command};
pub use input::{Input, Typed, Typist};
pub use qemu::{CPU as QEMU_CPU, PROGRAM as QEMU};

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cli::{Boot, MachineArgs, MachineKind};
use crate::image::{Payload, Protocol};
use crate::interrupt;
use crate::profile::Profile;
use crate::status::Failed;

/// Takes the bytes of COM1 as they come. An error ends the run.
pub type Console<'a> = dyn FnMut(&[u8]) -> std::io::Result<()> + 'a;

/// The emulator's side of COM1.
struct Line {
    /// Takes what is typed.
    to: Box<dyn Write + Send>,
    /// Ends when everything that the emulator has sent is in the file that is watched.
    drained: Option<JoinHandle<()>>,
}

/// How often a running emulator is looked at.
const TICK: Duration = Duration::from_millis(5);

/// A machine to run a payload on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The emulator.
    pub kind: MachineKind,
    /// How it boots.
    pub boot: Boot,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// Its CPU model, or the default.
    pub cpu: Option<String>,
    /// Instructions per second of the machine's time, or the default (Bochs).
    pub ips: Option<u32>,
    /// Instructions as clock (QEMU).
    pub icount: bool,
    /// Wall-clock limit of a run.
    pub timeout: Option<Duration>,
    /// Whether COM2 is recorded.
    pub trace: bool,
    /// Instructions to be counted one by one (QEMU).
    pub profile: Option<Profile>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The machine's software wrote this value to the debug exit port (QEMU).
    DebugExit(u32),
    /// The machine's software asked for power off (ACPI, or Bochs' shutdown port).
    Shutdown,
    /// The user left with the escape key.
    Left,
    /// The machine was reset, for example by a triple fault.
    Reset,
    /// The time limit passed.
    TimedOut,
    /// A signal came.
    Interrupted,
    /// The emulator gave up; its own words.
    Emulator(String),
}

/// The folder of one run: boot image, serial output, logs. It vanishes when it is dropped.
#[derive(Debug)]
pub struct RunFolder(tempfile::TempDir);

impl RunFolder {
    /// A new one.
    ///
    /// # Errors
    /// If the system has no place for temporary files.
    pub fn new() -> std::io::Result<Self> {
        tempfile::Builder::new().prefix("gnomon-").tempdir().map(Self)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What went out on COM1.
    #[must_use]
    pub fn com1(&self) -> PathBuf {
        self.path().join("com1")
    }

    /// What went out on COM2.
    #[must_use]
    pub fn com2(&self) -> PathBuf {
        self.path().join("com2")
    }
}

impl Machine {
    /// The machine that the arguments ask for. `protocol` is how the payload wants to be loaded, and `memory` what it wants, in
    /// bytes.
    ///
    /// # Errors
    /// If the arguments contradict each other.
    pub fn new(args: &MachineArgs, protocol: Protocol, memory: u64) -> anyhow::Result<Self> {
        let bochs = args.machine == MachineKind::Bochs;
        let own_loader = protocol != Protocol::Multiboot2;
        let boot = args.boot.unwrap_or(if bochs || !own_loader { Boot::Grub } else { Boot::Kernel });
        if boot == Boot::Kernel && !bochs && !own_loader {
            return Err(Failed::usage("QEMU does not know multiboot2: expected --boot grub"));
        }
        if bochs && boot == Boot::Kernel {
            return Err(Failed::usage("Bochs has no loader of its own: --boot kernel works on QEMU only"));
        }
        if bochs && args.icount {
            return Err(Failed::usage("--icount is for QEMU (Bochs counts instructions anyway)"));
        }
        if !bochs && args.ips.is_some() {
            return Err(Failed::usage("--ips is for Bochs (with --icount, QEMU has 1,000 million)"));
        }
        let memory_mib = args.host_memory.unwrap_or(memory).div_ceil(1 << 20);
        let timeout = args.timeout.map(Duration::from_secs_f64);
        Ok(Self {
            kind: args.machine,
            boot,
            memory_mib,
            cpu: args.cpu.clone(),
            ips: args.ips,
            icount: args.icount,
            timeout,
            trace: false,
            profile: None,
        })
    }

    /// Boots the payload and hands the bytes of COM1 to `console` as they come, until the machine ends; `input` is typed at
    /// COM1. No emulator survives this call.
    ///
    /// # Errors
    /// If the boot image cannot be made or the emulator cannot be started.
    pub fn run(
        &self,
        payload: &Payload,
        folder: &RunFolder,
        input: Input,
        console: &mut Console<'_>,
    ) -> anyhow::Result<Ending> {
        match self.kind {
            MachineKind::Qemu => qemu::run(self, payload, folder, input, console),
            MachineKind::Bochs => bochs::run(self, payload, folder, input, console),
        }
    }

    /// Watches an emulator until it exits (`Ok`) or has to be killed (`Err`: why).
    fn watch(
        &self,
        child: &mut Child,
        folder: &RunFolder,
        line: Line,
        input: Input,
        console: &mut Console<'_>,
    ) -> anyhow::Result<Result<std::process::ExitStatus, Ending>> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let mut tail = tail::Tail::new(folder.com1());
        let left = input.type_at(line.to);
        loop {
            let ended = child.try_wait()?;
            if let Some(status) = ended {
                line.drained.map(JoinHandle::join);
                tail.read(console)?;
                return Ok(Ok(status));
            }
            let more = tail.read(console)?;
            let late = deadline.is_some_and(|deadline| Instant::now() > deadline);
            let why = match (interrupt::pending(), left.load(Ordering::Relaxed), late) {
                (true, _, _) => Some(Ending::Interrupted),
                (_, true, _) => Some(Ending::Left),
                (_, _, true) => Some(Ending::TimedOut),
                _ => None,
            };
            if let Some(why) = why {
                child.kill();
                line.drained.map(JoinHandle::join);
                tail.read(console)?;
                return Ok(Err(why));
            }
            if !more {
                std::thread::sleep(TICK);
            }
        }
    }
}
