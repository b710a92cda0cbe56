# The only host instructions that may fault or be interrupted. Intel syntax.
#
#  Each is alone between two labels; `fault` knows them and resumes at the label after with EAX = 1 (or, when idle, with the
#  interrupt's vector). All are leaf functions that use no stack beyond their return address.

    .pushsection .text.gnomon_fixup, "ax"
    .globl gnomon_copy, gnomon_copy_insn, gnomon_copy_tail_insn, gnomon_copy_fault
    .globl gnomon_fetch, gnomon_fetch_low_insn, gnomon_fetch_high_insn, gnomon_fetch_fault
    .globl gnomon_load_es, gnomon_load_ds, gnomon_load_fs, gnomon_load_gs
    .globl gnomon_load_es_insn, gnomon_load_ds_insn, gnomon_load_fs_insn, gnomon_load_gs_insn, gnomon_load_fault
    .globl gnomon_idle, gnomon_idle_insn, gnomon_idle_done

# rdi = to, rsi = from, rdx = bytes; one of the two is a guest's linear address. eax = 0, or 1 if a byte faulted
    .balign 16
gnomon_copy:
    xor eax, eax
    mov rcx, rdx
    shr rcx, 3
gnomon_copy_insn:
    rep movsq
    and edx, 7
    jnz 1f
    ret
1:  mov ecx, edx
gnomon_copy_tail_insn:
    rep movsb
    ret
gnomon_copy_fault:
    mov eax, 1
    ret

# rdi = a guest's linear address. rax, rdx = the 16 bytes there, ecx = 0; or ecx = 1 if one faulted
    .balign 16
gnomon_fetch:
    xor ecx, ecx
gnomon_fetch_low_insn:
    mov rax, [rdi]
gnomon_fetch_high_insn:
    mov rdx, [rdi + 8]
    ret
gnomon_fetch_fault:
    mov ecx, 1
    ret

# edi = selector. eax = 0, or 1 if the CPU refused it
gnomon_load_es:
    xor eax, eax
gnomon_load_es_insn:
    mov es, edi
    ret
gnomon_load_ds:
    xor eax, eax
gnomon_load_ds_insn:
    mov ds, edi
    ret
gnomon_load_fs:
    xor eax, eax
gnomon_load_fs_insn:
    mov fs, edi
    ret
gnomon_load_gs:
    xor eax, eax
gnomon_load_gs_insn:
    mov gs, edi
    ret
gnomon_load_fault:
    mov eax, 1
    ret

# Waits for an interrupt: it arrives between gnomon_idle_insn and gnomon_idle_done, inclusive. eax = its vector.
# STI takes effect after the next instruction, so no interrupt can slip in before HLT and leave it sleeping.
    .balign 16
gnomon_idle:
    sti
gnomon_idle_insn:
    hlt
gnomon_idle_done:
    cli
    ret
    .popsection
