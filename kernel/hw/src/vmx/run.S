# Host to a VT-x guest and back. Intel syntax.
#
#  1. keep RBX and RBP and the context's address; tell the CPU where the stack is
#  2. the guest's general registers; the CPU takes everything else from the VMCS
#  3. VMLAUNCH the first time, VMRESUME from then on. What follows is reached only if the entry failed: EAX = 1
#  4. the CPU comes back at gnomon_vmx_exit with the host's RSP, interrupts off and flags clear: EAX = 0
#
#  in:  RDI = GuestContext, RSI = 0 for the first entry of this VMCS
#  out: EAX. All other registers but RBX, RBP and RSP are lost. A 32-bit guest has no R8 to R15, so they are not switched.

    .pushsection .text.gnomon_vmx_run, "ax"
    .globl gnomon_vmx_run, gnomon_vmx_exit
    .balign 16
gnomon_vmx_run:
    push rbx
    push rbp
    push rdi
    mov edx, {host_rsp}
    vmwrite rdx, rsp
    test rsi, rsi
    mov rax, [rdi]
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 40]
    mov rsi, [rdi + 48]
    mov rdi, [rdi + 56]
    jz 1f
    vmresume
    jmp 2f
1:  vmlaunch
2:  mov eax, 1
    pop rdi
    pop rbp
    pop rbx
    ret
gnomon_vmx_exit:
    xchg rdi, [rsp]
    mov [rdi], rax
    mov [rdi + 8], rcx
    mov [rdi + 16], rdx
    mov [rdi + 24], rbx
    mov [rdi + 40], rbp
    mov [rdi + 48], rsi
    pop rax
    mov [rdi + 56], rax
    xor eax, eax
    pop rbp
    pop rbx
    ret
    .popsection
