//! `grub.cfg`.

use super::{Payload, Protocol};
use crate::status::Failed;

/// The configuration that boots `payload`. The kernel is `/boot/kernel` on the image, the modules are `/boot/m0`, `/boot/m1`, ...
///
/// # Errors
/// If a command line holds a character that GRUB would not hand on unchanged.
pub fn config(payload: &Payload) -> anyhow::Result<String> {
    let (kernel, module) = match payload.protocol {
        Protocol::Multiboot1 => ("multiboot", "module"),
        Protocol::Multiboot2 | Protocol::Gnomon => ("multiboot2", "module2"),
        Protocol::Linux => return linux(payload),
        Protocol::Pvh => return Err(Failed::usage("GRUB does not know PVH: use --boot kernel on QEMU")),
    };
    let mut text = String::from("set timeout=0\n");
    text += &command(kernel, "/boot/kernel", &payload.command_line)?;
    for (index, boot_module) in payload.modules.iter().enumerate() {
        text += &command(module, &format!("/boot/m{index}"), &boot_module.command_line)?;
    }
    text += "boot\n";
    Ok(text)
}

/// All modules are initrds, one after the other; the screen stays in text mode.
fn linux(payload: &Payload) -> anyhow::Result<String> {
    let mut text = String::from("set timeout=0\nset gfxpayload=text\n");
    text += &command("linux", "/boot/kernel", &payload.command_line)?;
    if !payload.modules.is_empty() {
        let files: Vec<String> = (0..payload.modules.len()).map(|index| format!("/boot/m{index}")).collect();
        text += &format!("initrd {}\n", files.join(" "));
    }
    text += "boot\n";
    Ok(text)
}

fn command(name: &str, file: &str, command_line: &str) -> anyhow::Result<String> {
    let mut line = format!("{name} {file}");
    for word in command_line.split_ascii_whitespace() {
        line.push(' ');
        line.push_str(&quote(word)?);
    }
    line.push('\n');
    Ok(line)
}

/// One word in GRUB's language. Its loaders put a backslash before quotes and backslashes, so those cannot be handed on.
fn quote(word: &str) -> anyhow::Result<String> {
    if let Some(bad) = word.chars().find(|&c| matches!(c, '\'' | '"' | '\\') || c.is_control() || !c.is_ascii()) {
        let why =
            format!("GRUB cannot hand on {bad:?} in `{word}` unchanged: leave it out, or use --boot kernel on QEMU");
        return Err(Failed::usage(why));
    }
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c));
    Ok(if plain { word.to_owned() } else { format!("'{word}'") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::BootModule;
    use std::path::PathBuf;

    fn payload(protocol: Protocol, command_line: &str, modules: &[&str]) -> Payload {
        let module = |line: &&str| BootModule { file: PathBuf::new(), command_line: (*line).into() };
        Payload {
            protocol,
            kernel: PathBuf::new(),
            command_line: command_line.into(),
            modules: modules.iter().map(module).collect(),
            disks: Vec::new(),
        }
    }

    #[test]
    fn kernel_and_modules() {
        let text =
            config(&payload(Protocol::Multiboot2, "log=info trace=on", &["name=a mem=16M -- x", "of=a"])).unwrap();
        let expected = "set timeout=0\nmultiboot2 /boot/kernel log=info trace=on\n\
            module2 /boot/m0 name=a mem=16M -- x\nmodule2 /boot/m1 of=a\nboot\n";
        assert_eq!(text, expected);
        assert!(config(&payload(Protocol::Multiboot1, "", &[])).unwrap().contains("multiboot /boot/kernel\n"));
        let text = config(&payload(Protocol::Linux, "console=ttyS0 quiet", &["", ""])).unwrap();
        assert!(text.ends_with("linux /boot/kernel console=ttyS0 quiet\ninitrd /boot/m0 /boot/m1\nboot\n"), "{text}");
        assert!(config(&payload(Protocol::Pvh, "", &[])).is_err());
    }

    #[test]
    fn words_are_quoted_so_that_grub_does_not_read_them() {
        assert_eq!(quote("a=$x;{y}#&|<>").unwrap(), "'a=$x;{y}#&|<>'");
        assert_eq!(quote("root=/dev/sda,1").unwrap(), "root=/dev/sda,1");
        for bad in ["it's", "\"q\"", "back\\slash", "bell\x07", "ä"] {
            assert!(quote(bad).is_err(), "{bad}");
        }
    }
}
