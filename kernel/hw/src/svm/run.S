# Host to an AMD-V guest and back. Intel syntax.
#
#  1. keep RBX and RBP, the context's and the two control blocks' addresses
#  2. no interrupts of the host between the two worlds: GIF=0, then IF=1, so that the guest runs with the host's interrupts on
#  3. the guest's share of the state that VMRUN leaves alone (FS, GS, TR, LDTR, system call registers), and its general registers
#  4. VMRUN; the CPU comes back here, GIF=0, with the host's RAX, RSP and IF
#  5. the same backwards. STGI comes last: what is pending is taken by the caller's own means, with IF=0
#
#  in:  RDI = GuestContext, RSI = physical address of the guest's control block, RDX = that of the host's
#  out: nothing. All registers but RBX, RBP and RSP are lost. A 32-bit guest has no R8 to R15, so they are not switched.

    .pushsection .text.gnomon_svm_run, "ax"
    .globl gnomon_svm_run
    .balign 16
gnomon_svm_run:
    push rbx
    push rbp
    push rdx
    push rdi
    mov rax, rsi
    clgi
    sti
    vmload rax
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 40]
    mov rsi, [rdi + 48]
    mov rdi, [rdi + 56]
    vmrun rax
    cli
    vmsave rax
    mov rax, [rsp]
    mov [rax + 8], rcx
    mov [rax + 16], rdx
    mov [rax + 24], rbx
    mov [rax + 40], rbp
    mov [rax + 48], rsi
    mov [rax + 56], rdi
    mov rax, [rsp + 8]
    vmload rax
    stgi
    add rsp, 16
    pop rbp
    pop rbx
    cld
    ret
    .popsection
