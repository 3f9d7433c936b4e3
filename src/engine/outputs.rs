//! What a door wants done with its clients, as an effect.

use super::effect::ClientEffect;
use crate::doors::nbd::NbdOutput;
use crate::doors::resp::DoorOutput;

impl From<DoorOutput> for ClientEffect {
    fn from(output: DoorOutput) -> Self {
        match output {
            DoorOutput::Send { conn, bytes } => Self::Send { conn, bytes },
            DoorOutput::Receive { conn, buffer } => Self::Receive { conn, buffer },
            DoorOutput::Proven { conn } => Self::Proven { conn },
            DoorOutput::Guessed { conn } => Self::Guessed { conn },
            DoorOutput::Close { conn } => Self::Close { conn, stuck: false },
        }
    }
}

impl From<NbdOutput> for ClientEffect {
    fn from(output: NbdOutput) -> Self {
        match output {
            NbdOutput::Send { conn, bytes } => Self::Send { conn, bytes },
            NbdOutput::Receive { conn, buffer } => Self::Receive { conn, buffer },
            NbdOutput::Fill { conn, buffer, until } => Self::Fill { conn, buffer, until },
            NbdOutput::Proven { conn } => Self::Proven { conn },
            NbdOutput::Refused { conn, why } => Self::Refused { conn, why },
            NbdOutput::StartTls { conn } => Self::StartTls { conn },
            NbdOutput::Close { conn, stuck } => Self::Close { conn, stuck },
        }
    }
}
