//! Descriptions of guests, and the boot modules they become.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::cli::{RunArgs, parse_size};
use crate::status::Failed;

/// Memory of a guest that does not say, in bytes: what QEMU gives, because kernels are made for that.
const DEFAULT_MEMORY: u64 = 128 << 20;
/// Places for disks: master and slave of two channels.
const DISKS: usize = 4;

/// One guest of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its kernel image.
    pub kernel: PathBuf,
    /// Its memory in bytes.
    pub memory: u64,
    /// Other `key=value` words, which the hypervisor judges.
    pub words: Vec<String>,
    /// Arguments for the guest kernel.
    pub arguments: String,
    /// Modules for the guest, with their arguments; for Linux each is an initrd.
    pub modules: Vec<(PathBuf, String)>,
    /// Its IDE disks.
    pub disks: Vec<Disk>,
    /// What it prints when it is ready for input that does not come from a terminal.
    pub ready: Option<String>,
}

/// The image of an IDE disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Where it is: 0 and 1 are master and slave of the primary channel, 2 and 3 of the secondary.
    pub place: usize,
    /// The file.
    pub file: PathBuf,
    /// Whether what the guest writes goes to the file. Otherwise it is forgotten.
    pub keep: bool,
}

/// What the name of an image means: a kernel, and what belongs to it unless the user says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The kernel image.
    pub kernel: PathBuf,
    /// Modules that come first.
    pub modules: Vec<PathBuf>,
    /// A module that is added where there is a disk.
    pub drivers: Option<PathBuf>,
    /// Arguments for the kernel.
    pub arguments: String,
    /// Memory in bytes.
    pub memory: u64,
    /// As [`Guest::ready`].
    pub ready: Option<String>,
}

impl Found {
    /// A kernel image that brings nothing with it.
    #[must_use]
    pub fn kernel(kernel: PathBuf) -> Self {
        let (modules, arguments) = (Vec::new(), String::new());
        Self { kernel, modules, drivers: None, arguments, memory: DEFAULT_MEMORY, ready: None }
    }
}

/// A file for the boot loader, and its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootModule {
    /// The file.
    pub file: PathBuf,
    /// What the loader hands over with it.
    pub command_line: String,
}

impl Guest {
    /// A guest with the default memory.
    #[must_use]
    pub fn new(name: &str, kernel: &Path) -> Self {
        Self {
            name: name.to_owned(),
            kernel: kernel.to_owned(),
            memory: DEFAULT_MEMORY,
            words: Vec::new(),
            arguments: String::new(),
            modules: Vec::new(),
            disks: Vec::new(),
            ready: None,
        }
    }

    /// The guest that a name means, with everything that belongs to it.
    #[must_use]
    pub fn of(name: &str, found: Found) -> Self {
        Self {
            memory: found.memory,
            arguments: found.arguments,
            modules: found.modules.into_iter().map(|file| (file, String::new())).collect(),
            ready: found.ready,
            ..Self::new(name, &found.kernel)
        }
    }

    /// The guest that `gnomon run KERNEL ...` asks for. `find` turns the name of an image into its file.
    ///
    /// # Errors
    /// If a file is missing, or there are too many disks.
    pub fn from_args(args: &RunArgs, find: &mut Finder<'_>) -> anyhow::Result<Self> {
        let image = args.image.as_ref().or(args.kernel.as_ref());
        let image =
            image.ok_or_else(|| Failed::usage("expected a guest: gnomon run KERNEL (see gnomon run --help)"))?;
        let name = args.name.clone().unwrap_or_else(|| name_of(image));
        let found = find(image)?;
        let drivers = found.drivers.clone().filter(|_| args.initrd.is_empty());
        let mut guest = Self::of(&name, found);
        if let Some(arguments) = &args.append {
            guest.arguments = one_space(arguments);
        }
        guest.add_arguments(&args.arguments);
        guest.words.extend(args.policy.iter().map(|policy| format!("shadow={policy}")));
        guest.words.extend(args.console.map(|console| format!("console={}", console.word())));
        guest.words.extend(args.mmu.map(|mmu| format!("mmu={}", mmu.word())));
        guest.memory = args.memory.unwrap_or(guest.memory);
        if !args.initrd.is_empty() {
            guest.modules.clear();
        }
        for file in &args.initrd {
            guest.modules.push((existing(file)?, String::new()));
        }
        for text in &args.module {
            guest.modules.push(module(text)?);
        }
        for (place, file) in [&args.hda, &args.hdb, &args.hdc, &args.hdd].into_iter().enumerate() {
            if let Some(file) = file {
                guest.disks.push(Disk { place, file: existing(file)?, keep: args.keep_writes });
            }
        }
        for file in &args.disk {
            guest.add_disk(file, args.keep_writes)?;
        }
        guest.add_drivers(drivers);
        guest.ready = args.input_after.clone().or(guest.ready);
        Ok(guest)
    }

    /// A disk in the first place that is free.
    fn add_disk(&mut self, file: &str, keep: bool) -> anyhow::Result<()> {
        let free = (0..DISKS).find(|&place| self.disks.iter().all(|disk| disk.place != place));
        let place = free.ok_or_else(|| Failed::usage(format!("{file}: a guest has room for {DISKS} disks")))?;
        self.disks.push(Disk { place, file: existing(file)?, keep });
        Ok(())
    }

    fn add_drivers(&mut self, drivers: Option<PathBuf>) {
        if !self.disks.is_empty() {
            self.modules.extend(drivers.map(|file| (file, String::new())));
        }
    }

    fn add_arguments(&mut self, words: &[impl AsRef<str>]) {
        let words = words.iter().map(AsRef::as_ref).filter(|word| !word.is_empty());
        let all: Vec<&str> = [self.arguments.as_str()].into_iter().chain(words).collect();
        self.arguments = one_space(&all.join(" "));
    }

    /// The guest that `--guest 'name=a mem=16M kernel=FILE -- ARGS'` describes.
    ///
    /// # Errors
    /// If there is no kernel, or a file is missing.
    pub fn parse(text: &str, find: &mut Finder<'_>) -> anyhow::Result<Self> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let end = words.iter().position(|&word| word == "--").unwrap_or(words.len());
        let described = &words[..end];
        let value = |key: &str| described.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let image = value("kernel").ok_or_else(|| Failed::usage(format!("--guest '{text}': expected kernel=FILE")))?;
        let found = find(image)?;
        let drivers = found.drivers.clone();
        let mut guest = Self::of(&name_of(image), found);
        for word in described {
            match word.split_once('=') {
                Some(("kernel", _)) => {}
                Some(("name", value)) => guest.name = value.to_owned(),
                Some(("module" | "initrd", value)) => guest.modules.push(module(value)?),
                Some(("disk", value)) => guest.add_disk(value, false)?,
                Some(("mem", value)) => guest.memory = parse_size(value).map_err(Failed::usage)?,
                _ => guest.words.push((*word).to_owned()),
            }
        }
        guest.add_drivers(drivers);
        guest.add_arguments(words.get(end + 1..).unwrap_or(&[]));
        Ok(guest)
    }

    /// The boot modules that describe this guest to the hypervisor.
    #[must_use]
    pub fn boot_modules(&self) -> Vec<BootModule> {
        let mut line = format!("name={} mem={}", self.name, size_word(self.memory));
        for word in &self.words {
            line.push(' ');
            line.push_str(word);
        }
        let mut modules =
            vec![BootModule { file: self.kernel.clone(), command_line: with_arguments(line, &self.arguments) }];
        modules.extend(self.modules.iter().map(|(file, arguments)| BootModule {
            file: file.clone(),
            command_line: with_arguments(format!("of={}", self.name), arguments),
        }));
        modules.extend(self.disks.iter().map(|disk| BootModule {
            file: disk.file.clone(),
            command_line: format!("of={} disk={}{}", self.name, disk.place, if disk.keep { " save=on" } else { "" }),
        }));
        modules
    }
}

/// Finds out what the user's name of an image means.
pub type Finder<'a> = dyn FnMut(&str) -> anyhow::Result<Found> + 'a;

fn with_arguments(line: String, arguments: &str) -> String {
    if arguments.is_empty() { line } else { format!("{line} -- {arguments}") }
}

/// A size in the largest unit that expresses it.
fn size_word(bytes: u64) -> String {
    for (shift, suffix) in [(30, "G"), (20, "M"), (10, "K")] {
        if bytes.is_multiple_of(1 << shift) {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// A name for a guest, from its image's file name, in the letters that the hypervisor allows.
pub(crate) fn name_of(image: &str) -> String {
    let stem = Path::new(image).file_stem().unwrap_or_default().to_string_lossy();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(allowed).take(32).collect();
    if name.is_empty() { "vm1".into() } else { name }
}

/// `FILE ARGS` as a module. A file whose name has spaces in it is found if it exists.
fn module(text: &str) -> anyhow::Result<(PathBuf, String)> {
    let (file, arguments) =
        if Path::new(text).is_file() { (text, "") } else { text.split_once(' ').unwrap_or((text, "")) };
    existing(file).map(|file| (file, one_space(arguments)))
}

/// The file, if it can be read.
///
/// # Errors
/// A usage error with the system's reason if not.
pub fn existing(file: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(file);
    let readable = std::fs::File::open(&path).and_then(|file| file.metadata());
    match readable {
        Ok(meta) if meta.is_file() => path.canonicalize().with_context(|| file.to_owned()),
        Ok(_) => Err(Failed::usage(format!("{file}: not a file"))),
        Err(error) => Err(Failed::usage(format!("{file}: {error}"))),
    }
}

/// Boot loaders join words with one space; so does this, so that a guest sees the same whichever way it is booted.
fn one_space(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let guest = Guest::parse(text, &mut |image| Ok(Found::kernel(PathBuf::from(image)))).unwrap();
        guest.boot_modules().into_iter().map(|module| module.command_line).collect()
    }

    #[test]
    fn description_becomes_module_lines() {
        assert_eq!(
            lines("name=a mem=16M kernel=x.elf time=virtual -- one  two"),
            ["name=a mem=16M time=virtual -- one two"]
        );
        assert_eq!(lines("kernel=dir/my_kernel.elf"), ["name=my_kernel mem=128M"]);
        assert_eq!(
            lines("mem=1536K kernel=a,b.elf nonsense"),
            ["name=a-b mem=1536K nonsense"],
            "judged by the hypervisor"
        );
    }

    #[test]
    fn modules_belong_to_their_guest() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("name=a kernel=k module={}", file.path().display());
        assert_eq!(lines(&text), ["name=a mem=128M", "of=a"]);
    }

    #[test]
    fn a_description_needs_a_kernel() {
        let error = Guest::parse("name=a", &mut |image| Ok(Found::kernel(PathBuf::from(image)))).unwrap_err();
        assert_eq!(crate::status::of_error(&error), crate::status::Status::Usage);
    }
}
