//! Links the demo with its own layout: a kernel in the upper quarter of the address space and a user program below.

fn main() {
    println!("cargo:rerun-if-changed=demo.ld");
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = format!("-Wl,-T,{folder}/demo.ld");
    for argument in
        ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,norelro", script.as_str()]
    {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
