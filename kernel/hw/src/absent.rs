//! What stands for a back end that the kernel was built without.

#[cfg(not(feature = "svm"))]
pub(crate) mod svm {
    use crate::frames::VmId;
    use crate::virt::{HardwareCpu, Unavailable};
    use alloc::boxed::Box;
    use shadow_mmu::Root;

    pub(crate) fn make(_: VmId, _: Option<Root>) -> Result<Box<dyn HardwareCpu>, Unavailable> {
        Err(Unavailable::Missing("this kernel was built without the back end svm"))
    }
}

#[cfg(not(feature = "vmx"))]
pub(crate) mod vmx {
    use crate::frames::VmId;
    use crate::virt::{HardwareCpu, Unavailable};
    use alloc::boxed::Box;
    use shadow_mmu::Root;

    pub(crate) fn make(_: VmId, _: Option<Root>) -> Result<Box<dyn HardwareCpu>, Unavailable> {
        Err(Unavailable::Missing("this kernel was built without the back end vmx"))
    }
}
