//! Links the guests at 1 MiB, without start files and libraries. Only binaries see these arguments; the host's library
//! and tests are built as usual.

fn main() {
    println!("cargo:rerun-if-changed=guest.ld");
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = format!("-Wl,-T,{folder}/guest.ld");
    for argument in
        ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,norelro", script.as_str()]
    {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
