# Host to guest. Intel syntax.
#
#  1. keep what the calling Rust code cannot declare clobbered: RBX and RBP
#  2. keep the host's stack pointer; the exit stub comes back through it
#  3. the stack pointer walks the GuestContext upwards: the general registers that 32-bit code has. R8 to R15 keep what the host had in
#     them: no code outside of 64-bit mode can name them, and a guest has no 64-bit code segment (invariant K1)
#  4. skip R8 to R15, vector and error; IRETQ takes RIP CS RFLAGS RSP SS
#
#  in:  RDI = GuestContext
#  out: see exit.S. All registers but RBX, RBP and RSP are lost.
#
#  If IRETQ refuses CS or SS, it faults at gnomon_iretq with the guest's general registers loaded and RSP inside the
#  GuestContext. The CPU then pushes below that, over vector, error and what lies below: the general registers are in the CPU, and
#  exit.S, step 5, puts them back.

    .pushsection .text.gnomon_enter, "ax"
    .globl gnomon_enter, gnomon_iretq
    .balign 16
gnomon_enter:
    push rbx
    push rbp
    mov [rip + {host_rsp}], rsp
    mov rsp, rdi
    pop rax
    pop rcx
    pop rdx
    pop rbx
    pop rbp                             # gpr[4], unused
    pop rbp
    pop rsi
    pop rdi
    add rsp, 80
gnomon_iretq:
    iretq
    .popsection
