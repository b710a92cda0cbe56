# From the boot loader to 64-bit Rust. AT&T syntax.
#
#  1. headers: multiboot2 for GRUB; multiboot1 with address fields for `qemu -kernel`, which loads no ELF64 otherwise
#  2. keep EAX (magic) and EBX (information) in EDI and ESI, where the Rust function wants them
#  3. check for long mode; without it, say so on COM1 and leave with code 0x12
#  4. page tables: 4 GiB in 2 MiB pages, at 0 (to survive the switch) and at the window (PML4 slot 256)
#  5. PAE, LME, PG; a 64-bit code segment; jump into the window
#  6. boot stack, then Rust
#
#  in:  EAX magic, EBX physical address of the information, flat 32-bit segments, paging and interrupts off
#  out: gnomon_start(edi = magic, esi = information), RSP = top of the boot stack

    .set MB2_MAGIC, 0xe85250d6
    .set MB1_MAGIC, 0x1badb002
    .set MB1_FLAGS, 0x00010003          # page-aligned modules, memory map, address fields

    .section .boot.header, "a"
    .balign 8
mb2_header:
    .long MB2_MAGIC
    .long 0                             # architecture: i386
    .long mb2_end - mb2_header
    .long -(MB2_MAGIC + (mb2_end - mb2_header))
    .word 6, 1                          # optional tag: modules on page boundaries
    .long 8
    .word 0, 0                          # end tag
    .long 8
mb2_end:
    .balign 4
mb1_header:
    .long MB1_MAGIC
    .long MB1_FLAGS
    .long -(MB1_MAGIC + MB1_FLAGS)
    .long mb1_header                    # header_addr
    .long gnomon_image_start            # load_addr
    .long gnomon_load_end_physical      # load_end_addr
    .long gnomon_image_end_physical     # bss_end_addr
    .long gnomon_entry32                # entry_addr

    .section .boot.text, "ax"
    .code32
    .globl gnomon_entry32
gnomon_entry32:
    cli
    cld
    movl %eax, %edi
    movl %ebx, %esi
    movl $gnomon_boot_stack_physical, %esp

    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb no_long_mode
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc no_long_mode

    # 2048 entries in four page directories: present, writable, 2 MiB
    movl $gnomon_boot_directories_physical, %ebx
    xorl %ecx, %ecx
1:  movl %ecx, %eax
    shll $21, %eax
    orl $0x83, %eax
    movl %eax, (%ebx,%ecx,8)
    movl $0, 4(%ebx,%ecx,8)
    incl %ecx
    cmpl $2048, %ecx
    jb 1b

    # the page directories in the first four slots of one PDPT
    movl $gnomon_boot_pdpt_physical, %edx
    xorl %ecx, %ecx
    leal 3(%ebx), %eax
2:  movl %eax, (%edx,%ecx,8)
    addl $4096, %eax
    incl %ecx
    cmpl $4, %ecx
    jb 2b

    # the PDPT in slots 0 and 256
    movl $gnomon_boot_pml4_physical, %ebx
    leal 3(%edx), %eax
    movl %eax, (%ebx)
    movl %eax, 2048(%ebx)
    movl %ebx, %cr3

    movl %cr4, %eax
    orl $0x20, %eax                     # PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx              # EFER
    rdmsr
    orl $0x100, %eax                    # LME
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax               # PG
    movl %eax, %cr0

    lgdt boot_gdt_pointer
    ljmp $0x08, $gnomon_entry64

no_long_mode:
    movl $no_long_mode_text, %esi
3:  lodsb
    testb %al, %al
    jz 5f
    movb %al, %bl
    movw $0x3fd, %dx
4:  inb %dx, %al
    testb $0x20, %al
    jz 4b
    movw $0x3f8, %dx
    movb %bl, %al
    outb %al, %dx
    jmp 3b
5:  movb $0x12, %al
    outb %al, $0xf4
6:  hlt
    jmp 6b

    .code64
gnomon_entry64:
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movabsq $gnomon_boot_stack_top, %rsp
    movabsq $gnomon_start, %rax
    xorl %ebp, %ebp
    pushq $0                            # end of the frame chain; keeps the stack as after a call
    jmpq *%rax

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00209b0000000000            # 64-bit code
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .long boot_gdt
no_long_mode_text:
    .byte 0x1e
    .ascii "[gnomon error] CPU: no long mode; use qemu-system-x86_64 or a 64-bit Bochs model\n"
    .byte 0x1e
    .asciz "[gnomon exit] code=0x12 reason=no long mode\n"

    .section .bss.gnomon_boot, "aw", @nobits
    .balign 4096
    .globl gnomon_boot_pml4, gnomon_boot_pdpt, gnomon_boot_directories, gnomon_stack_guard, gnomon_boot_stack_top
gnomon_boot_pml4:
    .skip 4096
gnomon_boot_pdpt:
    .skip 4096
gnomon_boot_directories:
    .skip 4 * 4096
gnomon_stack_guard:
    .skip 4096
    .skip 128 * 1024
gnomon_boot_stack_top:

    .text
