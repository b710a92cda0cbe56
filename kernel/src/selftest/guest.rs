//! A guest of four pages, built by hand through the same gates that real guests pass.

use gnomon_hw::frames::{self, Owner};
use gnomon_hw::phys::GuestWindow;
use gnomon_hw::tables::HostTables;
use gnomon_hw::{Exit, SegReg, Table, VmId, World};
use shadow_mmu::{Perms, Pfn, Root, Spte, TableMem};

/// Linear address of the code page; the read-only page and the data page follow. Everything else is unmapped.
pub(super) const CODE: u32 = 0x1000;
pub(super) const READ_ONLY: u32 = 0x2000;
pub(super) const DATA: u32 = 0x3000;
pub(super) const UNMAPPED: u32 = 0x8000;

/// Flat segments of ring 1: present, accessed, 4 GiB.
pub(super) const RING1_CODE: u64 = 0x00cf_bb00_0000_ffff;
const RING1_DATA: u64 = 0x00cf_b300_0000_ffff;
pub(super) const CS: u16 = 1 << 3 | 1;
pub(super) const DS: u16 = 2 << 3 | 1;

pub(super) struct Guest {
    pub(super) world: World,
    pub(super) tables: HostTables,
    /// Root, L3, L2, L1.
    pub(super) table_frames: [Pfn; 4],
    pub(super) code: Pfn,
    pub(super) window: GuestWindow,
}

impl Guest {
    /// Builds machine `vm`; `None` if a gate refuses or memory is out.
    pub(super) fn new(vm: VmId) -> Option<Self> {
        let mut tables = HostTables::new(vm);
        let mut table_frames = [Pfn::new(0); 4];
        for frame in &mut table_frames {
            *frame = frames::alloc(Owner::Table(vm))?;
            tables.clear(*frame);
        }
        let [root, l3, l2, l1] = table_frames;
        tables.make_root(root).ok()?;
        for (table, lower) in [(root, l3), (l3, l2), (l2, l1)] {
            tables.store(table, 0, Spte::table(lower)).ok()?;
        }
        let window = GuestWindow::new(vm);
        let mut page = |address: u32, perms| {
            let frame = frames::alloc_scattered(Owner::Guest(vm))?;
            window.zero(frame).ok()?;
            tables.store(l1, (address >> 12) as usize, Spte::leaf(frame, perms)).ok()?;
            Some(frame)
        };
        let code = page(CODE, Perms::new(false, false, true))?;
        page(READ_ONLY, Perms::new(true, false, false))?;
        page(DATA, Perms::new(true, true, false))?;

        let mut world = World::new(vm).ok()?;
        world.set_descriptor(Table::Gdt, 1, RING1_CODE).ok()?;
        world.set_descriptor(Table::Gdt, 2, RING1_DATA).ok()?;
        world.set_root(Root { table: root });
        for reg in [SegReg::Es, SegReg::Ds, SegReg::Ss] {
            world.load_segment(reg, DS).ok()?;
        }
        world.load_segment(SegReg::Cs, CS).ok()?;
        Some(Self { world, tables, table_frames, code, window })
    }

    /// Runs `code` from the start of the code page, with the stack in the middle of the data page.
    pub(super) fn run(&mut self, code: &[u8]) -> Exit {
        if self.window.copy_in(self.code, 0, code).is_err() {
            return Exit::EntryFailed(0);
        }
        let context = self.world.context_mut();
        context.rip = CODE.into();
        context.rsp = u64::from(DATA) + 0x800;
        context.rflags = 0;
        context.cs = CS.into();
        context.ss = DS.into();
        self.world.run()
    }
}
