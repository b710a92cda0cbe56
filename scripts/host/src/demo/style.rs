//! Colours, on a terminal only.

/// How text is marked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    colour: bool,
}

impl Style {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A heading.
    pub(super) fn title(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What the guest's tables hold.
    pub(super) fn guest(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// What the hypervisor's tables hold.
    pub(super) fn shadow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Of less weight.
    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
}
