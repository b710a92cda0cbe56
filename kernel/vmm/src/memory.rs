//! Guest memory by linear and by physical address, as an instruction of the guest would reach it.
//!
//! Supervisor accesses first try the guest's own live mapping, where the CPU does the walk; whatever faults there goes the slow
//! way: a walk of the guest's tables with exact rights and A/D bits, then the frame.

use shadow_mmu::{Access, AccessKind, Gfn, GfnKind, Gpa, GuestMem as _, Gva, Privilege, TranslateError};

use crate::ram::PAGE;
use crate::trap::{Emulated, Exception, Trap};
use crate::vm::Vm;

/// Bytes fetched at EIP: two quadwords, which is cheaper than the 15 that an instruction can have.
const FETCHED: usize = 16;

impl Vm {
    /// Reads guest memory at a linear address.
    ///
    /// # Errors
    /// The page fault that the guest's tables demand.
    #[inline]
    pub(crate) fn read_linear(&mut self, gva: u32, bytes: &mut [u8], privilege: Privilege) -> Emulated<()> {
        if let Some(gpa) = self.device_hint.and_then(|hint| hint.covers(gva, bytes.len())) {
            self.read_physical(gpa, bytes);
            return Ok(());
        }
        if privilege == Privilege::Supervisor && self.world.read_linear(gva, bytes).is_ok() {
            return Ok(());
        }
        self.read_walked(gva, bytes, Access { kind: AccessKind::Read, privilege })
    }

    /// Writes guest memory at a linear address, with everything that follows from it if a tracked frame is hit.
    ///
    /// # Errors
    /// The page fault that the guest's tables demand; then nothing was written by the walk.
    #[inline]
    pub(crate) fn write_linear(&mut self, gva: u32, bytes: &[u8], privilege: Privilege) -> Emulated<()> {
        if let Some(gpa) = self.write_hint.and_then(|hint| hint.covers(gva, bytes.len())) {
            self.write_physical(gpa, bytes);
            return Ok(());
        }
        if privilege == Privilege::Supervisor && self.world.write_linear(gva, bytes).is_ok() {
            return Ok(());
        }
        self.write_walked(gva, bytes, privilege)
    }

    /// Reads by a walk of the guest's tables.
    pub(crate) fn read_walked(&mut self, gva: u32, bytes: &mut [u8], access: Access) -> Emulated<()> {
        let (head, tail) = split_at_page(gva, bytes.len());
        let first = self.translate(gva, access)?;
        let second = if tail > 0 { Some(self.translate(gva.wrapping_add(head as u32), access)?) } else { None };
        if let Some((front, back)) = bytes.split_at_mut_checked(head) {
            self.read_physical(first, front);
            if let Some(second) = second {
                self.read_physical(second, back);
            }
        }
        Ok(())
    }

    /// Writes by a walk of the guest's tables; both pages are translated before either is written.
    pub(crate) fn write_walked(&mut self, gva: u32, bytes: &[u8], privilege: Privilege) -> Emulated<()> {
        let access = Access { kind: AccessKind::Write, privilege };
        let (head, tail) = split_at_page(gva, bytes.len());
        let first = self.translate(gva, access)?;
        let second = if tail > 0 { Some(self.translate(gva.wrapping_add(head as u32), access)?) } else { None };
        if let Some((front, back)) = bytes.split_at_checked(head) {
            self.write_physical(first, front);
            if let Some(second) = second {
                self.write_physical(second, back);
            }
        }
        Ok(())
    }

    /// Guest-physical address of a linear one, with the walk's effects on A and D bits.
    pub(crate) fn translate(&mut self, gva: u32, access: Access) -> Emulated<Gpa> {
        self.mmu.translate(Gva::new(gva.into()), access).map_err(untranslated)
    }

    /// Where the CPU has just fetched from. If it walks the guest's own tables it has set A on the way.
    #[inline]
    fn translate_fetch(&mut self, gva: u32, access: Access) -> Emulated<Gpa> {
        if self.nested.is_none() {
            return self.translate(gva, access);
        }
        self.mmu.probe(Gva::new(gva.into()), access).map_err(untranslated)
    }

    /// Reads memory, or the device that is there, at a guest-physical address inside one page.
    pub(crate) fn read_physical(&mut self, gpa: Gpa, bytes: &mut [u8]) {
        match self.mmu.mem().kind_at(gpa) {
            GfnKind::Ram(_) | GfnKind::Rom(_) | GfnKind::NotResident => self.mmu.mem().read(gpa, bytes),
            GfnKind::Mmio | GfnKind::Hole => self.read_device(gpa, bytes),
        }
    }

    /// Writes guest memory at a guest-physical address inside one page, and tells whoever tracks that frame. ROM stays as it is,
    /// and what is no memory goes to the device there.
    pub(crate) fn write_physical(&mut self, gpa: Gpa, bytes: &[u8]) {
        match self.mmu.mem().kind_at(gpa) {
            GfnKind::Ram(_) | GfnKind::NotResident => {}
            GfnKind::Rom(_) => return,
            GfnKind::Mmio | GfnKind::Hole => return self.write_device(gpa, bytes),
        }
        let kind = self.mmu.write_kind(gpa.gfn());
        let before = self.tracer.is_on().then(|| self.mmu.mem().read_u32(Gpa::new(gpa.raw() & !3))).flatten();
        self.mmu.mem().write(gpa, bytes);
        let plan = self.mmu.on_write_from(gpa, bytes.len(), before.map(u64::from));
        self.flush(plan);
        if kind.watched {
            self.code_frame_written(gpa, bytes.len());
            self.descriptor_frame_written(gpa, bytes.len());
        }
    }

    /// Reads a little-endian doubleword.
    pub(crate) fn read_u32(&mut self, gva: u32, privilege: Privilege) -> Emulated<u32> {
        let mut bytes = [0; 4];
        self.read_linear(gva, &mut bytes, privilege)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads a little-endian word.
    pub(crate) fn read_u16(&mut self, gva: u32, privilege: Privilege) -> Emulated<u16> {
        let mut bytes = [0; 2];
        self.read_linear(gva, &mut bytes, privilege)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// Reads a little-endian quadword.
    pub(crate) fn read_u64(&mut self, gva: u32, privilege: Privilege) -> Emulated<u64> {
        let mut bytes = [0; 8];
        self.read_linear(gva, &mut bytes, privilege)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Fetches the 16 bytes at an instruction, the first one lowest; says how many came before the first fault, at least one.
    ///
    /// # Errors
    /// The page fault of the first byte.
    #[inline]
    pub(crate) fn fetch(&mut self, gva: u32) -> Emulated<(u128, usize)> {
        if self.nested.is_none()
            && let Some(bytes) = self.world.fetch(gva)
        {
            return Ok((bytes, FETCHED));
        }
        self.fetch_walked(gva)
    }

    #[inline(never)]
    fn fetch_walked(&mut self, gva: u32) -> Emulated<(u128, usize)> {
        // The CPU fetches from the code window, so the page's own mapping may not be there yet.
        if self.on_shadow_code()
            && self.fill_for(gva, AccessKind::Read).is_some()
            && let Some(bytes) = self.world.fetch(gva)
        {
            return Ok((bytes, FETCHED));
        }
        let mut bytes = [0; FETCHED];
        let access = Access { kind: AccessKind::Fetch, privilege: self.privilege() };
        let (head, tail) = split_at_page(gva, bytes.len());
        let first = self.translate_fetch(gva, access)?;
        let (front, back) = bytes.split_at_mut(head);
        self.mmu.mem().read(first, front);
        let mut came = head;
        if tail > 0
            && let Ok(second) = self.translate(gva.wrapping_add(head as u32), access)
        {
            self.mmu.mem().read(second, back);
            came = FETCHED;
        }
        Ok((u128::from_le_bytes(bytes), came))
    }

    /// Guest frame behind a linear address for the monitor's own use: no rights asked, no A/D bits set.
    pub(crate) fn frame_behind(&self, gva: u32) -> Option<Gfn> {
        let access = Access { kind: AccessKind::Read, privilege: Privilege::Supervisor };
        self.mmu.frame_behind(Gva::new(gva.into()), access)
    }
}

/// What a failed translation means for the instruction.
#[cold]
fn untranslated(error: TranslateError) -> Trap {
    match error {
        TranslateError::Fault(fault) => {
            Trap::Exception(Exception::page_fault(fault.error.bits(), fault.gva.raw() as u32))
        }
        TranslateError::NotResident(_) => Trap::Stop(crate::exit::NOT_RESIDENT),
        TranslateError::NonCanonical(_) => Exception::gp(0).into(),
        TranslateError::Stop(stop) => Trap::Stop(crate::exit::mmu_stop(stop)),
    }
}

/// Bytes of a range before and behind the next page border. Ranges are shorter than a page.
fn split_at_page(gva: u32, len: usize) -> (usize, usize) {
    let room = (PAGE - u64::from(gva) % PAGE) as usize;
    let head = len.min(room);
    (head, len.saturating_sub(head))
}
