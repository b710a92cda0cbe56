//! The boot modules' command lines: which guests there are, and which modules belong to them.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use shadow_mmu::Policy;

use super::description::{DEFAULT_MEMORY, GuestConfig, GuestDisk, GuestModule, ImageFormat, MmuMode, TimeMode};
use super::error::ConfigError;
use super::kernel::{Switch, parse_switch};
use super::words::{Line, number, size};
use crate::dev::{ConsoleKind, DISKS};

const WORDS: &str = "name=, mem=, time=, apic=, smap=, shadow=, mmu=, shadow-code=, patches=, console=, format=, addr= or of=, disk=, save=, \
     and the guest's own arguments after --";
const NAME: &str = "1 to 32 letters, digits, `-`, `_` or `.`";
const MEM: &str = "a size from 1M to 3G in steps of 4K, such as 16M";
const TIME: &str = "real or virtual";
const CONSOLE: &str = "auto, serial, lines or screen";
const SWITCH: &str = "on or off";
const SHADOW: &str = Policy::WORDS;
const MMU: &str = "shadow or nested";
const FORMAT: &str = "auto, linux, multiboot, multiboot2, pvh or flat";
const ADDR: &str = "an address below 4G, such as 0x100000";

const DISK: &str = "0 to 3: primary master, primary slave, secondary master, secondary slave";
const SAVE: &str = "on or off";

const MIB: u64 = 1 << 20;
/// Below this the loader could not place a kernel at 1 MiB.
const LEAST_MEMORY: u64 = MIB;
/// The gigabyte below 4 GiB belongs to devices on a PC.
const MOST_MEMORY: u64 = 3 << 30;
const DEFAULT_FLAT_ADDRESS: u32 = 0x10_0000;
const LONGEST_NAME: usize = 32;

/// Reads the command lines of all boot modules, in their order, and says which guests they make.
///
/// # Errors
/// A [`ConfigError`] for the first line that cannot be understood, for two guests of one name, for a module of an
/// unknown guest, and when there is no guest at all.
pub fn parse_guests<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Vec<GuestConfig>, ConfigError> {
    let mut guests = Vec::<GuestConfig>::new();
    let mut owned = Vec::new();
    for (index, line) in lines.into_iter().enumerate() {
        let place = format!("module {}", index.saturating_add(1));
        let words = ModuleWords::read(&place, line)?;
        match words.of.clone() {
            Some(of) => {
                let module = words.into_owned(index)?;
                owned.push((place, of, module));
            }
            None => {
                let guest = words.into_guest(index, guests.len())?;
                if guests.iter().any(|other| other.name == guest.name) {
                    return Err(ConfigError::SameName { name: guest.name });
                }
                guests.push(guest);
            }
        }
    }
    for (place, name, owned) in owned {
        let Some(guest) = guests.iter_mut().find(|guest| guest.name == name) else {
            return Err(ConfigError::NoSuchGuest { place, name });
        };
        match owned {
            Owned::Module(module) => guest.modules.push(module),
            Owned::Disk(disk) if guest.disks.iter().any(|other| other.place == disk.place) => {
                let problem = "this guest has a disk of that number: expected another disk=";
                return Err(ConfigError::Combination { place, problem });
            }
            Owned::Disk(disk) => guest.disks.push(disk),
        }
    }
    if guests.is_empty() { Err(ConfigError::NoGuest) } else { Ok(guests) }
}

/// What a boot module is to its guest.
enum Owned {
    Module(GuestModule),
    Disk(GuestDisk),
}

/// The words of one module's command line, not yet judged together.
#[derive(Default)]
struct ModuleWords<'a> {
    place: &'a str,
    path: Option<&'a str>,
    arguments: &'a str,
    name: Option<String>,
    of: Option<String>,
    disk: Option<usize>,
    save: Option<Switch>,
    memory: Option<u64>,
    time: Option<TimeMode>,
    apic: Option<Switch>,
    smap: Option<Switch>,
    shadow: Option<Policy>,
    mmu: Option<MmuMode>,
    console: Option<ConsoleKind>,
    format: Option<ImageFormat>,
    address: Option<u32>,
    shadow_code: Option<Switch>,
    patches: Option<Switch>,
}

impl<'a> ModuleWords<'a> {
    fn read(place: &'a str, line: &'a str) -> Result<Self, ConfigError> {
        let line = Line::new(line);
        let mut found = Self { place, path: line.path, arguments: line.rest, ..Self::default() };
        for word in line.words() {
            let Some(value) = word.value else { return Err(unknown(place, word.text)) };
            match word.key {
                "name" => set(place, &mut found.name, "name", parse_name(value), value, NAME)?,
                "of" => set(place, &mut found.of, "of", parse_name(value), value, NAME)?,
                "disk" => set(place, &mut found.disk, "disk", parse_disk(value), value, DISK)?,
                "save" => set(place, &mut found.save, "save", parse_switch(value), value, SAVE)?,
                "mem" => set(place, &mut found.memory, "mem", parse_memory(value), value, MEM)?,
                "time" => set(place, &mut found.time, "time", parse_time(value), value, TIME)?,
                "apic" => set(place, &mut found.apic, "apic", parse_switch(value), value, SWITCH)?,
                "smap" => set(place, &mut found.smap, "smap", parse_switch(value), value, SWITCH)?,
                "shadow" => set(place, &mut found.shadow, "shadow", value.parse().ok(), value, SHADOW)?,
                "mmu" => set(place, &mut found.mmu, "mmu", parse_mmu(value), value, MMU)?,
                "console" => set(place, &mut found.console, "console", parse_console(value), value, CONSOLE)?,
                "format" => set(place, &mut found.format, "format", parse_format(value), value, FORMAT)?,
                "addr" => set(place, &mut found.address, "addr", parse_address(value), value, ADDR)?,
                "patches" => set(place, &mut found.patches, "patches", parse_switch(value), value, SWITCH)?,
                "shadow-code" => {
                    set(place, &mut found.shadow_code, "shadow-code", parse_switch(value), value, SWITCH)?;
                }
                _ => return Err(unknown(place, word.text)),
            }
        }
        Ok(found)
    }

    fn combination(&self, problem: &'static str) -> ConfigError {
        ConfigError::Combination { place: self.place.to_owned(), problem }
    }

    fn into_owned(self, index: usize) -> Result<Owned, ConfigError> {
        let others = [self.name.is_some(), self.memory.is_some(), self.time.is_some(), self.format.is_some()];
        let others = others.into_iter().chain([self.address.is_some(), self.apic.is_some(), self.smap.is_some()]);
        if others
            .chain([
                self.shadow.is_some(),
                self.mmu.is_some(),
                self.shadow_code.is_some(),
                self.patches.is_some(),
                self.console.is_some(),
            ])
            .any(|given| given)
        {
            let problem = "of= stands with words for a guest: expected at most disk= and save= beside it";
            return Err(self.combination(problem));
        }
        match (self.disk, self.save) {
            (Some(place), save) => Ok(Owned::Disk(GuestDisk { index, place, save: save.unwrap_or(Switch::Off) })),
            (None, Some(_)) => Err(self.combination("save= is for disks: expected disk= beside it")),
            (None, None) => Ok(Owned::Module(GuestModule { index, arguments: self.arguments.to_owned() })),
        }
    }

    fn into_guest(self, index: usize, guests_before: usize) -> Result<GuestConfig, ConfigError> {
        if self.disk.is_some() || self.save.is_some() {
            return Err(self.combination("a disk needs its guest: expected of= beside disk="));
        }
        let format = match (self.format, self.address) {
            (Some(ImageFormat::Flat { .. }), Some(address)) => ImageFormat::Flat { address },
            (format, None) => format.unwrap_or(ImageFormat::Auto),
            (_, Some(_)) => {
                return Err(self.combination("addr= is for flat images only: expected format=flat beside it"));
            }
        };
        let name = self.name.or_else(|| self.path.and_then(file_stem));
        Ok(GuestConfig {
            name: name.unwrap_or_else(|| format!("vm{}", guests_before.saturating_add(1))),
            memory: self.memory.unwrap_or(DEFAULT_MEMORY),
            time: self.time.unwrap_or(TimeMode::Real),
            apic: self.apic.unwrap_or(Switch::On),
            smap: self.smap.unwrap_or(Switch::Off),
            shadow: self.shadow.unwrap_or(Policy::RECOMMENDED),
            mmu: self.mmu,
            console: self.console.unwrap_or(ConsoleKind::Auto),
            format,
            shadow_code: self.shadow_code.unwrap_or(Switch::On),
            patches: self.patches.unwrap_or(Switch::On),
            arguments: self.arguments.to_owned(),
            image: index,
            modules: Vec::new(),
            disks: Vec::new(),
        })
    }
}

fn unknown(place: &str, word: &str) -> ConfigError {
    ConfigError::UnknownWord { place: place.to_owned(), word: word.to_owned(), expected: WORDS }
}

/// Stores what was read for `key`, once.
fn set<T>(
    place: &str,
    slot: &mut Option<T>,
    key: &'static str,
    read: Option<T>,
    value: &str,
    expected: &'static str,
) -> Result<(), ConfigError> {
    if slot.is_some() {
        return Err(ConfigError::Repeated { place: place.to_owned(), key });
    }
    *slot = read;
    match slot {
        Some(_) => Ok(()),
        None => Err(ConfigError::BadValue { place: place.to_owned(), key, value: value.to_owned(), expected }),
    }
}

fn parse_name(value: &str) -> Option<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=LONGEST_NAME).contains(&value.len()) && value.bytes().all(good);
    fits.then(|| value.to_owned())
}

/// The name of the file at `path` without folders and ending, if it can be a guest's name.
fn file_stem(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = file.split_once('.').map_or(file, |(stem, _)| stem);
    parse_name(stem)
}

fn parse_memory(value: &str) -> Option<u64> {
    size(value).filter(|bytes| (LEAST_MEMORY..=MOST_MEMORY).contains(bytes) && bytes % 4096 == 0)
}

fn parse_console(value: &str) -> Option<ConsoleKind> {
    match value {
        "auto" => Some(ConsoleKind::Auto),
        "serial" => Some(ConsoleKind::Serial),
        "lines" => Some(ConsoleKind::Lines),
        "screen" => Some(ConsoleKind::Screen),
        _ => None,
    }
}

fn parse_disk(value: &str) -> Option<usize> {
    number(value).map(|place| place as usize).filter(|&place| place < DISKS)
}

fn parse_time(value: &str) -> Option<TimeMode> {
    match value {
        "real" => Some(TimeMode::Real),
        "virtual" => Some(TimeMode::Virtual),
        _ => None,
    }
}

fn parse_mmu(value: &str) -> Option<MmuMode> {
    match value {
        "shadow" => Some(MmuMode::Shadow),
        "nested" => Some(MmuMode::Nested),
        _ => None,
    }
}

fn parse_format(value: &str) -> Option<ImageFormat> {
    match value {
        "auto" => Some(ImageFormat::Auto),
        "linux" => Some(ImageFormat::Linux),
        "multiboot" => Some(ImageFormat::Multiboot),
        "multiboot2" => Some(ImageFormat::Multiboot2),
        "pvh" => Some(ImageFormat::Pvh),
        "flat" => Some(ImageFormat::Flat { address: DEFAULT_FLAT_ADDRESS }),
        _ => None,
    }
}

fn parse_address(value: &str) -> Option<u32> {
    number(value).and_then(|address| u32::try_from(address).ok())
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
