//! The Gnomon kernel: takes the machine over and hands it to the virtual machine monitor.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod selftest;

use core::panic::PanicInfo;
use gnomon_boot::{BootError, BootInfo};
use gnomon_hw::heap::Heap;
use gnomon_hw::power::{self, ExitCode};

#[global_allocator]
static HEAP: Heap = Heap::new();

/// The command-line word that runs the self-test instead of guests, alone or as `selftest=panic`, `selftest=overflow`.
const SELFTEST: &str = "selftest";

/// Called by the boot code, on the boot stack, with the loader's memory still in place.
#[expect(unsafe_code, reason = "the boot code finds this function by name; the name is unique")]
#[unsafe(no_mangle)]
fn gnomon_kernel_main(info: Result<BootInfo, BootError>) -> ! {
    gnomon_hw::early_init();
    gnomon_hw::report::set_symbols(gnomon_boot::bare::symbol_table());
    let info = match info {
        Ok(info) => info,
        Err(error) => config_error(format_args!("{error}")),
    };
    if let Err(missing) = gnomon_hw::init(&info) {
        config_error(format_args!("{missing}"));
    }
    let memory = gnomon_hw::frames::stats();
    log::info!("Gnomon {}, loaded by {}, {} KiB free", env!("CARGO_PKG_VERSION"), info.loader_name, memory.free * 4);
    for (key, how) in info.command_line.split(' ').map(|word| word.split_once('=').unwrap_or((word, ""))) {
        if key == SELFTEST {
            selftest::run(how);
        }
    }
    let gnomon_vmm::Ending { code, status, reason } = gnomon_vmm::run(&info);
    power::exit(code, status, reason)
}

fn config_error(what: core::fmt::Arguments<'_>) -> ! {
    log::error!("{what}");
    power::exit(ExitCode::Config, None, "the machine or its boot loader")
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    gnomon_hw::fault::panic(info)
}
