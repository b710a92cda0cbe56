use super::*;

/// The rules that this machine code breaks, as if it were the function `name`.
fn rules(name: &str, code: &[u8]) -> Vec<&'static str> {
    let symbols = Symbols::from_list([(0x1000, code.len() as u64, name.to_owned())]);
    let mut findings = Vec::new();
    check_code(code, 0x1000, &symbols, &mut findings);
    findings.into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn fpu_and_vector_instructions_are_found() {
    let cases: [(&str, &[u8]); 6] = [
        ("movaps xmm0,[rax]", &[0x0f, 0x28, 0x00]),
        ("paddb mm0,mm1", &[0x0f, 0xfc, 0xc1]),
        ("fld1", &[0xd9, 0xe8]),
        ("fxsave [rax]", &[0x0f, 0xae, 0x00]),
        ("ldmxcsr [rax]", &[0x0f, 0xae, 0x10]),
        ("vzeroupper; vpxor ymm0", &[0xc5, 0xfd, 0xef, 0xc0]),
    ];
    for (what, code) in cases {
        assert_eq!(rules("gnomon_vmm::f", code), ["touches FPU or vector state"], "{what}");
    }
}

#[test]
fn state_switches_are_allowed_in_hw_only() {
    let fxsave = [0x0f, 0xae, 0x00];
    assert!(rules("gnomon_hw::fpu::switch", &fxsave).is_empty());
    let movaps = [0x0f, 0x28, 0x00];
    assert_eq!(rules("gnomon_hw::fpu::switch", &movaps).len(), 1);
}

#[test]
fn fences_pause_and_integer_code_pass() {
    // lfence; mfence; pause; rep stosq; popcnt rax, rax; xgetbv
    let code = [
        0x0f, 0xae, 0xe8, 0x0f, 0xae, 0xf0, 0xf3, 0x90, 0xf3, 0x48, 0xab, 0xf3, 0x48, 0x0f, 0xb8, 0xc0, 0x0f, 0x01,
        0xd0,
    ];
    assert!(rules("f", &code).is_empty());
}

#[test]
fn accesses_below_rsp_are_found() {
    assert_eq!(rules("f", &[0x48, 0x89, 0x44, 0x24, 0xf8]), [BELOW_RSP], "mov [rsp-8], rax");
    assert!(rules("f", &[0x48, 0x89, 0x44, 0x24, 0x08]).is_empty(), "mov [rsp+8], rax");
    assert!(rules("f", &[0x48, 0x8d, 0x44, 0x24, 0xf8]).is_empty(), "lea rax, [rsp-8]");
}

#[test]
fn a_red_zone_through_the_frame_pointer_is_found() {
    // push rbp; mov rbp, rsp; [sub rsp, 16;] mov [rbp-8], rax; pop rbp; ret
    let leaf = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0x45, 0xf8, 0x5d, 0xc3];
    assert_eq!(rules("f", &leaf), [BELOW_RSP]);
    let framed = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0x48, 0x89, 0x45, 0xf8, 0xc9, 0xc3];
    assert!(rules("f", &framed).is_empty());
    let pushed = [0x55, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x89, 0x45, 0xf8, 0x5b, 0x5d, 0xc3];
    assert!(rules("f", &pushed).is_empty(), "a pushed register's own place");
}
