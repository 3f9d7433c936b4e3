//! Accounts, files and their D-pointers; D3's order of decision.

/// Stand-in until the namespace is written.
#[derive(Clone, Debug, Default)]
pub struct Namespace {}
