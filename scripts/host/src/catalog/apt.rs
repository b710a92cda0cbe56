//! Packages from the machine's own Debian sources, for another architecture, without changing anything in the system: apt gets
//! a state folder of its own. It checks signatures and sums as always.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::progress;
use crate::status::Failed;

/// apt with a state of its own.
#[derive(Debug)]
pub(super) struct Apt {
    options: Vec<OsString>,
    /// Where downloads go; gone when this is dropped.
    downloads: tempfile::TempDir,
}

/// A package that was fetched.
#[derive(Debug)]
pub(super) struct Package {
    /// Its file's name without the extension: name, version and architecture.
    pub(super) name: String,
    file: PathBuf,
}

impl Apt {
    /// Reads the lists of packages, into `folder`.
    ///
    /// # Errors
    /// If there is no apt, or it cannot read them.
    pub(super) fn new(folder: &Path, architecture: &str) -> anyhow::Result<Self> {
        let (state, cache) = (folder.join("state"), folder.join("cache"));
        fs::create_dir_all(state.join("lists/partial"))?;
        fs::create_dir_all(cache.join("archives/partial"))?;
        // No package is installed, as far as this apt knows.
        let status = state.join("status");
        fs::write(&status, "")?;
        let downloads = tempfile::Builder::new().prefix("download-").tempdir_in(folder)?;
        let mut options = vec![OsString::from("-q")];
        let mut option = |name: &str, value: &std::ffi::OsStr| {
            let mut text = OsString::from(format!("{name}="));
            text.push(value);
            options.extend(["-o".into(), text]);
        };
        option("APT::Architecture", architecture.as_ref());
        option("APT::Architectures::", architecture.as_ref());
        option("Dir::State", state.as_ref());
        option("Dir::State::status", status.as_ref());
        option("Dir::Cache", cache.as_ref());
        option("Acquire::Languages", "none".as_ref());
        option("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".as_ref());
        // The folders belong to us, not to apt's own user.
        option("APT::Sandbox::User", "".as_ref());
        let apt = Self { options, downloads };
        progress::step("reading Debian's lists of packages", || {
            apt.update();
            Ok(())
        })?;
        Ok(apt)
    }

    /// A list that cannot be read may not be needed: what is missing in the end says so.
    fn update(&self) {
        if let Err(error) = self.run("apt-get", &["update"]) {
            progress::note(&format!("{error}"));
        }
    }

    /// The package that `package` depends on and whose name begins with `prefix`.
    ///
    /// # Errors
    /// If the package is not known or has no such dependency.
    pub(super) fn dependency(&self, package: &str, prefix: &str) -> anyhow::Result<String> {
        let said = self.run("apt-cache", &["show", "--no-all-versions", package])?;
        let found = dependency(&said, prefix);
        found.ok_or_else(|| Failed::tool(format!("Debian's {package} names no package {prefix}...: it said\n{said}")))
    }

    /// Fetches a package.
    ///
    /// # Errors
    /// If it is not known or cannot be fetched.
    pub(super) fn fetch(&self, name: &str) -> anyhow::Result<Package> {
        progress::step(&format!("fetching {name}"), || self.run("apt-get", &["download", name]))?;
        let files = fs::read_dir(self.downloads.path())?.filter_map(Result::ok).map(|entry| entry.path());
        let wanted = format!("{name}_");
        let of = |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&wanted));
        let file = files.into_iter().find(of).ok_or_else(|| Failed::tool(format!("apt-get has not fetched {name}")))?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().replace("%3a", ":");
        Ok(Package { name: stem, file })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(program);
        command.args(&self.options).args(arguments).current_dir(self.downloads.path()).env("LC_ALL", "C");
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| {
            Failed::tool(format!("cannot run {program} ({error}): ready guests come by Debian's apt"))
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().filter(|line| line.starts_with("E:")).take(3).collect();
        Err(Failed::tool(format!("{program} {} failed: {}", arguments.join(" "), last.join("; "))))
    }
}

/// The first package in the `Depends` line of what `apt-cache show` says whose name begins with `prefix`.
fn dependency(said: &str, prefix: &str) -> Option<String> {
    let depends = said.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    let names = depends.split([',', '|']).filter_map(|one| one.split_ascii_whitespace().next());
    names.into_iter().find(|name| name.starts_with(prefix)).map(str::to_owned)
}

impl Package {
    /// Writes one file of the package to `to`.
    ///
    /// # Errors
    /// If it is not in the package.
    pub(super) fn extract(&self, file: &str, to: &Path) -> anyhow::Result<()> {
        self.pick(Command::new("tar").arg("--to-stdout").stdout(fs::File::create(to)?), &[file])?;
        if fs::metadata(to)?.len() == 0 {
            return Err(Failed::tool(format!("{file} of {} is empty", self.name)));
        }
        Ok(())
    }

    /// Writes files of the package below the folder `to`, with their folders.
    ///
    /// # Errors
    /// If one is not in the package.
    pub(super) fn unpack(&self, files: &[String], to: &Path) -> anyhow::Result<()> {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        self.pick(Command::new("tar").arg("--directory").arg(to), &files)
    }

    /// Lets `tar` take files out of the package.
    fn pick(&self, tar: &mut Command, files: &[&str]) -> anyhow::Result<()> {
        let tool =
            |program: &str, error: &dyn std::fmt::Display| Failed::tool(format!("cannot run {program}: {error}"));
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--fsys-tarfile").arg(&self.file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut unpack = unpack.spawn().map_err(|error| tool("dpkg-deb", &error))?;
        tar.args(["--extract", "--file", "-"]).args(files);
        if let Some(archive) = unpack.stdout.take() {
            tar.stdin(archive);
        }
        let picked = tar.output().map_err(|error| tool("tar", &error))?;
        let unpacked = unpack.wait()?;
        if unpacked.success() && picked.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&picked.stderr);
        Err(Failed::tool(format!("cannot take {} out of {}: {}", files.join(", "), self.name, said.trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_of_the_day_is_a_dependency() {
        let said =
            "Package: linux-image-686\nDepends: init-tools, linux-image-6.1.0-50-686 (= 6.1.176-1) | other\nSize: 1\n";
        assert_eq!(dependency(said, "linux-image-").as_deref(), Some("linux-image-6.1.0-50-686"));
        assert_eq!(dependency(said, "linux-headers-"), None);
        assert_eq!(dependency("N: nothing\n", "linux-image-"), None);
    }
}
