# Guest to host, and the few exceptions that arrive in host mode. Intel syntax.
#
#  1. one stub a vector: an error code of 0 where the CPU pushes none, and the vector
#  2. the general registers that 32-bit code has. From a guest, the stack pointer started at the end of the GuestContext (TSS.RSP0), so
#     this fills it. R8 to R15 are out of the guest's reach, and lost: their places stay as they are
#  3. guest or host: the host runs above 4 GiB. Where TCG let a guest's EIP run over, RFLAGS.VM and CS decide; VM first, since TCG lets
#     a guest enter virtual-8086 mode inside long mode, and then CS is no selector
#  4. guest: back to the host's stack, and return from gnomon_enter
#  5. host: R8 to R15 as well. At gnomon_iretq, the entry was refused: Rust moves the registers to the GuestContext and notes it there
#     host, #DB: QEMU reports a data breakpoint of the guest's a second time, if the guest steps too. This frame lies in the part of
#     the GuestContext that is not filled yet, and in the memory before it, so nothing is called
#  6. host, elsewhere: a fixup or a report in Rust, which may change the frame; then resume it
#
#  NMI, #DF and #MC have stacks of their own (IST), so their frames are not in the GuestContext: always step 6.
#  No CR3 write and no FPU save: the guest's root holds the host's window, and the host uses no FPU registers.

    .pushsection .text.gnomon_exit, "ax"
    .globl gnomon_vectors, gnomon_exit
    .balign 16
gnomon_vectors:
    .set gnomon_vector, 0
    .rept 256
    .balign 16
    .if gnomon_vector == 8 || (gnomon_vector >= 10 && gnomon_vector <= 14) || gnomon_vector == 17 || gnomon_vector == 21 || gnomon_vector == 29 || gnomon_vector == 30
    .else
    push 0
    .endif
    push gnomon_vector
    .if gnomon_vector == 2 || gnomon_vector == 8 || gnomon_vector == 18
    jmp gnomon_exit_ist
    .else
    jmp gnomon_exit
    .endif
    .set gnomon_vector, gnomon_vector + 1
    .endr

    .balign 16
gnomon_exit:
    sub rsp, 64                         # gpr[8..16]
    push rdi
    push rsi
    push rbp
    push rbp                            # gpr[4], unused
    push rbx
    push rdx
    push rcx
    push rax
    cmp dword ptr [rsp + {rip} + 4], 0
    jne 2f
1:  cld
    mov rsp, [rip + {host_rsp}]
    pop rbp
    pop rbx
    ret

2:  test dword ptr [rsp + {rflags}], 0x20000
    jnz 1b
    test byte ptr [rsp + {cs}], 3
    jnz 1b
    cld
    mov [rsp + {gpr8}], r8
    mov [rsp + {gpr8} + 8], r9
    mov [rsp + {gpr8} + 16], r10
    mov [rsp + {gpr8} + 24], r11
    mov [rsp + {gpr8} + 32], r12
    mov [rsp + {gpr8} + 40], r13
    mov [rsp + {gpr8} + 48], r14
    mov [rsp + {gpr8} + 56], r15
    cmp qword ptr [rsp + {vector}], 1
    je 6f
    mov rdi, rsp
    lea rax, [rip + gnomon_iretq]
    cmp [rsp + {rip}], rax
    jne 4f
    mov rsp, [rip + {host_rsp}]         # its frame stays readable: it is in the memory before the GuestContext
    mov rbx, rsp
    and rsp, -16
    call {entry_refused}
    mov rsp, rbx
    pop rbp
    pop rbx
    ret

4:  mov rbx, rsp
    and rsp, -16
    call {host_exception}
    mov rsp, rbx
5:  pop rax
    pop rcx
    pop rdx
    pop rbx
    pop rbp                             # gpr[4], unused
    pop rbp
    pop rsi
    pop rdi
    pop r8
    pop r9
    pop r10
    pop r11
    pop r12
    pop r13
    pop r14
    pop r15
    add rsp, 16
    iretq

6:  mov eax, 0x400                      # no breakpoints
    mov dr7, rax
    jmp 5b

gnomon_exit_ist:
    push r15
    push r14
    push r13
    push r12
    push r11
    push r10
    push r9
    push r8
    push rdi
    push rsi
    push rbp
    push rbp                            # gpr[4], unused
    push rbx
    push rdx
    push rcx
    push rax
    cld
    mov rdi, rsp
    jmp 4b
    .popsection
