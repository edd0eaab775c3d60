//! The engine against PyTorch. Golden files, and the scripts that made them, are in `../golden`; measured distances are
//! printed with `--nocapture`.

mod bf16;
mod interchange;
mod layers;
mod networks;
mod rounds;
#[path = "../support/mod.rs"]
mod support;
