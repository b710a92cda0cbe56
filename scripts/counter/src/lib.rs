//! A plugin of QEMU's translator: counts how many times each instruction of a range of addresses is executed, and all others
//! together. `gnomon bench profile` and `gnomon run --profile` load it.
//!
//! Its arguments are `first=ADDRESS`, `bytes=NUMBER` and `out=FILE`. When QEMU ends it writes a line `ADDRESS COUNT` for each
//! instruction that was executed, the address in hexadecimal digits, and a line `elsewhere COUNT`.
//!
//! Source: QEMU's `include/qemu/qemu-plugin.h`, version 1 of the interface (QEMU 4.2 to 8.2).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The version of the interface, which QEMU reads.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU looks for this name")]
pub static qemu_plugin_version: c_int = 1;

/// `QEMU_PLUGIN_INLINE_ADD_U64`: the translator adds to a number in memory, without a call.
const ADD: c_int = 0;

/// A translated block, and an instruction in it: QEMU's.
#[repr(C)]
struct Block([u8; 0]);
#[repr(C)]
struct Instruction([u8; 0]);

type OnBlock = extern "C" fn(id: u64, block: *mut Block);
type OnExit = extern "C" fn(id: u64, data: *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: OnBlock);
    fn qemu_plugin_register_atexit_cb(id: u64, callback: OnExit, data: *mut c_void);
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    fn qemu_plugin_register_vcpu_insn_exec_inline(
        instruction: *mut Instruction,
        operation: c_int,
        number: *mut c_void,
        value: u64,
    );
}

/// All counts of a run.
struct Counts {
    first: u64,
    /// One for each address from `first` on.
    range: Vec<AtomicU64>,
    elsewhere: AtomicU64,
    out: String,
}

static COUNTS: OnceLock<Counts> = OnceLock::new();

impl Counts {
    fn from_arguments<'a>(arguments: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (mut first, mut bytes, mut out) = (None, None, None);
        for argument in arguments {
            match argument.split_once('=')? {
                ("first", value) => first = Some(value.parse().ok()?),
                ("bytes", value) => bytes = Some(value.parse::<usize>().ok()?),
                ("out", value) => out = Some(value.to_owned()),
                _ => return None,
            }
        }
        let range = std::iter::repeat_with(AtomicU64::default).take(bytes?).collect();
        Some(Self { first: first?, range, elsewhere: AtomicU64::default(), out: out? })
    }

    fn of(&self, address: u64) -> &AtomicU64 {
        let place = address.checked_sub(self.first).and_then(|offset| usize::try_from(offset).ok());
        place.and_then(|place| self.range.get(place)).unwrap_or(&self.elsewhere)
    }

    fn text(&self) -> String {
        let mut text = format!("elsewhere {}\n", self.elsewhere.load(Ordering::Relaxed));
        for (address, count) in (self.first..).zip(&self.range) {
            let count = count.load(Ordering::Relaxed);
            if count != 0 {
                let _ = writeln!(text, "{address:x} {count}");
            }
        }
        text
    }
}

/// QEMU calls it once, after it has loaded the plugin.
///
/// # Safety
/// `argv` must hold `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let arguments = (0..usize::try_from(argc).unwrap_or(0)).filter_map(|index| {
        // SAFETY: the caller's promise. The strings live as long as QEMU does.
        let text = unsafe { CStr::from_ptr(*argv.add(index)) };
        text.to_str().ok()
    });
    let Some(counts) = Counts::from_arguments(arguments) else {
        eprintln!("gnomon-counter: expected first=ADDRESS,bytes=NUMBER,out=FILE");
        return 1;
    };
    if COUNTS.set(counts).is_err() {
        return 1;
    }
    // SAFETY: `id` is what QEMU gave us, and the functions have the types that it wants.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
        qemu_plugin_register_atexit_cb(id, on_exit, std::ptr::null_mut());
    }
    0
}

extern "C" fn on_block(_id: u64, block: *mut Block) {
    let Some(counts) = COUNTS.get() else { return };
    // SAFETY: `block` is valid during this call, indices below the number of its instructions are, and so are those.
    unsafe {
        for index in 0..qemu_plugin_tb_n_insns(block) {
            let instruction = qemu_plugin_tb_get_insn(block, index);
            let count = counts.of(qemu_plugin_insn_vaddr(instruction));
            // The number is never freed, and the one virtual CPU is all that writes it.
            qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD, count.as_ptr().cast(), 1);
        }
    }
}

extern "C" fn on_exit(_id: u64, _data: *mut c_void) {
    let Some(counts) = COUNTS.get() else { return };
    if let Err(error) = std::fs::write(&counts.out, counts.text()) {
        eprintln!("gnomon-counter: {}: {error}", counts.out);
    }
}
