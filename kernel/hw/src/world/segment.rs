//! Segment registers of a guest. DS, ES, FS and GS stay in the CPU while the world is resident; CS and SS are in its context.

use super::state::State;
use super::{Table, World, resident};
use crate::entry::{gnomon_load_ds, gnomon_load_es, gnomon_load_fs, gnomon_load_gs};
use crate::gdt::{CACHE, CACHE_COUNT, GDT_GUEST_ENTRIES, LDT_ENTRIES};
use crate::{cpu, fault};
use core::arch::asm;
use core::ptr;

/// A segment register, in x86 numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SegReg {
    /// ES.
    Es = 0,
    /// CS.
    Cs = 1,
    /// SS.
    Ss = 2,
    /// DS.
    Ds = 3,
    /// FS.
    Fs = 4,
    /// GS.
    Gs = 5,
}

/// The exception that a segment load gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFault {
    /// 11 (not present) or 13 (general protection).
    pub vector: u8,
    /// The error code: the selector without its RPL.
    pub error: u32,
}

impl World {
    /// The selector in a segment register.
    #[must_use]
    pub fn segment(&self, reg: SegReg) -> u16 {
        match (reg, &self.hardware) {
            (SegReg::Cs, _) => self.context().cs as u16,
            (SegReg::Ss, _) => self.context().ss as u16,
            (_, Some(hardware)) => hardware.selector(reg),
            (_, None) => self.data_selectors()[reg as usize],
        }
    }

    /// The descriptor that a segment register holds, whatever has become of the table's entry; 0 for a null selector. CS and SS
    /// hold what the table has: they are loaded from it at each run.
    #[must_use]
    pub fn loaded_descriptor(&self, reg: SegReg) -> u64 {
        if let Some(hardware) = &self.hardware {
            return hardware.descriptor(reg);
        }
        let selector = self.segment(reg);
        if selector & !3 == 0 {
            return 0;
        }
        let (table, index) = place(selector);
        let now = self.descriptor(table, index);
        self.state().hidden.of(reg, selector, now).unwrap_or(now)
    }

    /// Whether a data segment register holds what the entry at this place was before, and that is not `new`.
    #[must_use]
    pub fn keeps_other(&self, (table, index): (Table, u16), new: u64) -> bool {
        let now = self.descriptor(table, index);
        self.state().hidden.differs(&self.data_selectors(), (table, index), now, new)
    }

    /// The selector in a data segment register, if what the register holds cannot change while the selector and the live tables stay; 0 if
    /// it can, or if the world is not in the CPU.
    #[must_use]
    #[inline]
    pub fn settled_segment(&self, reg: SegReg) -> u16 {
        if !ptr::eq(cpu::resident(), self.state.as_ptr()) {
            return 0;
        }
        let selector = read_all()[reg as usize];
        if self.state().hidden.is_empty(reg) || self.is_settled(reg, selector) { selector } else { 0 }
    }

    /// A register that keeps what the table has lost gets something else by a load without an exit only if the table has an entry again.
    fn is_settled(&self, reg: SegReg, selector: u16) -> bool {
        let (table, index) = place(selector);
        let now = self.descriptor(table, index);
        now == 0 || self.state().hidden.of(reg, selector, now).is_none()
    }

    /// The selectors in ES, DS, FS and GS.
    #[inline]
    pub(super) fn data_selectors(&self) -> [u16; 6] {
        if ptr::eq(cpu::resident(), self.state.as_ptr()) { read_all() } else { self.state().segments }
    }

    /// Loads a segment register from the live tables, as the CPU does it at CPL 0: a check against the guest's own privilege
    /// is the caller's. CS and SS only go to the context, and are judged at the next run ([`Exit::EntryFailed`]).
    ///
    /// On `Err` the register is as it was.
    ///
    /// [`Exit::EntryFailed`]: super::Exit::EntryFailed
    pub fn load_segment(&mut self, reg: SegReg, selector: u16) -> Result<(), SegmentFault> {
        match reg {
            SegReg::Cs => self.context_mut().cs = selector.into(),
            SegReg::Ss => self.context_mut().ss = selector.into(),
            _ if is_host(selector) => {
                return Err(SegmentFault { vector: fault::GENERAL_PROTECTION, error: u32::from(selector & !3) });
            }
            _ => {
                resident::make_resident(self.state.as_ptr());
                let (table, index) = place(selector);
                let before = self.descriptor(table, index);
                load(reg, selector)?;
                self.state_mut().hidden.loaded(reg);
                // The accessed bit tells of the guest's own loads.
                self.restore_entry((table, index), before);
            }
        }
        Ok(())
    }

    /// Makes the world's LDT the live one, or loads a null LDTR.
    pub fn set_ldt(&mut self, present: bool) {
        self.state_mut().ldt_present = present;
        if ptr::eq(cpu::resident(), self.state.as_ptr()) {
            // SAFETY: a resident world's GDT is the live one, and it has an LDT entry.
            unsafe { crate::gdt::load_ldt(present) };
        }
    }

    /// Keeps ring 1 from executing user pages, where the CPU can: for guests whose kernel runs on shadow code.
    pub fn set_fetch_guard(&mut self, on: bool) {
        self.state_mut().fetch_guard = on;
        resident::set_controls(self.state.as_ptr());
    }

    /// The guest's FPU and SSE registers as FXSAVE stores them (SDM 1 10.5.1), to look at them and to change them; MXCSR stays. `change`
    /// says whether it changed any.
    pub fn edit_fpu(&mut self, change: impl FnOnce(&mut [u8; 512]) -> bool) {
        resident::edit_fpu(self.state.as_ptr(), change);
    }

    /// The guest's CR0.TS, EM, MP and AM, and CR4.TSD, DE, OSFXSR, OSXMMEXCPT, SMEP and SMAP; other bits are ignored.
    ///
    /// A hardware world takes both registers as the guest believes them.
    pub fn set_control_bits(&mut self, cr0: u64, cr4: u64) {
        if let Some(hardware) = &mut self.hardware {
            return hardware.set_controls(cr0, cr4);
        }
        let state = self.state_mut();
        if (state.cr0, state.cr4) != (cr0, cr4) {
            (state.cr0, state.cr4) = (cr0, cr4);
            resident::set_controls(self.state.as_ptr());
        }
    }
}

/// Does the selector name a GDT entry of the host's?
const fn is_host(selector: u16) -> bool {
    let (index, local) = (selector >> 3, selector & 4 != 0);
    !local && index >= GDT_GUEST_ENTRIES && !(index >= CACHE && index < CACHE + CACHE_COUNT)
}

fn load(reg: SegReg, selector: u16) -> Result<(), SegmentFault> {
    let selector = u32::from(selector);
    // SAFETY: host code uses none of these registers, so any content will do. A refused selector is caught by the fixup.
    let refused = unsafe {
        match reg {
            SegReg::Es => gnomon_load_es(selector),
            SegReg::Ds => gnomon_load_ds(selector),
            SegReg::Fs => gnomon_load_fs(selector),
            SegReg::Gs => gnomon_load_gs(selector),
            SegReg::Cs | SegReg::Ss => 0,
        }
    };
    if refused == 0 {
        return Ok(());
    }
    let (vector, error) = fault::last();
    Err(SegmentFault { vector, error })
}

/// The selectors in the CPU.
#[inline]
pub(super) fn read_all() -> [u16; 6] {
    let (es, ds, fs, gs): (u32, u32, u32, u32);
    // SAFETY: reads registers only.
    unsafe {
        asm!(
            "mov {0:e}, es", "mov {1:e}, ds", "mov {2:e}, fs", "mov {3:e}, gs",
            out(reg) es, out(reg) ds, out(reg) fs, out(reg) gs,
            options(nomem, nostack, preserves_flags),
        );
    }
    [es as u16, 0, 0, ds as u16, fs as u16, gs as u16]
}

/// The data segment registers.
pub(super) const DATA: [SegReg; 4] = [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs];

/// The place of an entry in a world's tables; callers check the index before they use it.
pub(super) fn entry(state: *mut State, table: Table, index: u16) -> *mut u64 {
    // SAFETY: these are places within the state, which is a live world's; no reference is made.
    let first = unsafe {
        match table {
            Table::Gdt => (&raw mut (*state).gdt.0).cast::<u64>(),
            Table::Ldt => (&raw mut (*state).ldt).cast::<u64>(),
        }
    };
    first.wrapping_add(usize::from(index))
}

/// Loads all from a world's saved selectors, with the descriptors they had in the CPU. One that cannot be loaded becomes null.
///
/// # Safety
/// `state` is a live world's that nothing else refers to, its tables are the live ones, and its LDT is loaded.
pub(super) unsafe fn load_all(state: *mut State) {
    for reg in DATA {
        // SAFETY: the caller gives the state exclusively.
        let selector = unsafe { (*state).segments[reg as usize] };
        // SAFETY: as above; the live tables are this world's.
        if unsafe { load_as_before(state, reg, selector) }.is_err() {
            load_null(reg);
        }
    }
}

/// Loads one register. Where the table's entry has changed since the register was loaded, the entry is put back for the
/// moment of the load: the CPU keeps what it loaded.
///
/// # Safety
/// As for [`load_all`].
unsafe fn load_as_before(state: *mut State, reg: SegReg, selector: u16) -> Result<(), SegmentFault> {
    let (table, index) = place(selector);
    if table == Table::Ldt && index >= LDT_ENTRIES {
        return load(reg, selector);
    }
    let entry = entry(state, table, index);
    // SAFETY: the index is within the table: 13 bits for the GDT, checked above for the LDT. The caller gives the state
    // exclusively; a hidden descriptor passed the gate when it was set.
    unsafe {
        let now = entry.read_volatile();
        let Some(before) = (*state).hidden.of(reg, selector, now) else {
            return load(reg, selector);
        };
        entry.write_volatile(before);
        let done = load(reg, selector);
        entry.write_volatile(now);
        done
    }
}

fn load_null(reg: SegReg) {
    if load(reg, 0).is_err() {
        log::error!("a null selector was refused for {reg:?}");
    }
}

/// Makes all null.
pub(super) fn clear_all() {
    DATA.into_iter().for_each(load_null);
}

/// The table and entry that a selector names.
pub(super) const fn place(selector: u16) -> (Table, u16) {
    (if selector & 4 != 0 { Table::Ldt } else { Table::Gdt }, selector >> 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gdt::HOST_CODE_SELECTOR;

    #[test]
    fn the_hosts_entries_cannot_be_loaded() {
        assert!(is_host(HOST_CODE_SELECTOR));
        assert!(is_host(HOST_CODE_SELECTOR | 3));
        assert!(is_host(0xfff8));
        assert!(!is_host(0));
        assert!(!is_host(HOST_CODE_SELECTOR | 4), "an LDT selector");
        assert!(!is_host(CACHE << 3 | 1));
        assert!(!is_host((GDT_GUEST_ENTRIES - 1) << 3));
    }
}
