//! Operators' roles and what each may do: the table that the matrix test prints.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A role. Each may do all that the one before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Registers devices and mints tokens.
    Operator,
    /// Revokes, holds, releases; admits gateways and services; writes fleets' policies.
    SecurityOfficer,
    /// Creates fleets, admits operators, makes backups.
    Owner,
}

/// What an operator may ask for at the admin door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// See fleets, devices, certificates, tokens' public parts, authorities.
    Read,
    /// See the ledger's entries and proofs.
    ReadLedger,
    /// Register a device or change its record.
    RegisterDevice,
    /// Mint or withdraw an enrollment token.
    MintToken,
    /// Revoke, hold or release a device's certificate.
    ChangeStanding,
    /// Admit, change or put out a gateway or a service.
    ManageGateways,
    /// Create or change a fleet.
    ManageFleets,
    /// Invite, change or put out an operator.
    ManageOperators,
    /// Make a backup of the installation.
    Backup,
    /// Write, activate and roll back a fleet's policy set.
    ManagePolicy,
    /// Write, activate and roll back the installation's policy set.
    ManageInstallationPolicy,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 11] = [
        Self::Read,
        Self::ReadLedger,
        Self::RegisterDevice,
        Self::MintToken,
        Self::ChangeStanding,
        Self::ManageGateways,
        Self::ManageFleets,
        Self::ManageOperators,
        Self::Backup,
        Self::ManagePolicy,
        Self::ManageInstallationPolicy,
    ];

    /// The action's name, as policies and the audit trail have it: the variant's.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::ReadLedger => "ReadLedger",
            Self::RegisterDevice => "RegisterDevice",
            Self::MintToken => "MintToken",
            Self::ChangeStanding => "ChangeStanding",
            Self::ManageGateways => "ManageGateways",
            Self::ManageFleets => "ManageFleets",
            Self::ManageOperators => "ManageOperators",
            Self::Backup => "Backup",
            Self::ManagePolicy => "ManagePolicy",
            Self::ManageInstallationPolicy => "ManageInstallationPolicy",
        }
    }

    /// Whether the action reaches beyond single fleets, so that an operator granted only some fleets may not do it.
    pub const fn is_installation_wide(self) -> bool {
        matches!(
            self,
            Self::ManageGateways | Self::ManageFleets | Self::ManageOperators | Self::Backup | Self::ManageInstallationPolicy
        )
    }

    /// The least role that may do it.
    pub const fn least_role(self) -> Role {
        match self {
            Self::Read | Self::ReadLedger => Role::Viewer,
            Self::RegisterDevice | Self::MintToken => Role::Operator,
            Self::ChangeStanding | Self::ManageGateways | Self::ManagePolicy => Role::SecurityOfficer,
            Self::ManageFleets | Self::ManageOperators | Self::Backup | Self::ManageInstallationPolicy => Role::Owner,
        }
    }
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::SecurityOfficer, Self::Owner];

    /// Whether the role may do `action`.
    pub fn may(self, action: Action) -> bool {
        self >= action.least_role()
    }

    /// The role's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::SecurityOfficer => "security-officer",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is viewer, operator, security-officer or owner")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns: viewer, operator, security officer, owner.
    #[test]
    fn the_matrix_is_as_written() {
        let table = [
            (Action::Read, "yyyy"),
            (Action::ReadLedger, "yyyy"),
            (Action::RegisterDevice, "nyyy"),
            (Action::MintToken, "nyyy"),
            (Action::ChangeStanding, "nnyy"),
            (Action::ManageGateways, "nnyy"),
            (Action::ManageFleets, "nnny"),
            (Action::ManageOperators, "nnny"),
            (Action::Backup, "nnny"),
            (Action::ManagePolicy, "nnyy"),
            (Action::ManageInstallationPolicy, "nnny"),
        ];
        assert_eq!(table.map(|(action, _)| action), Action::ALL);
        for (action, row) in table {
            for (role, mark) in Role::ALL.into_iter().zip(row.chars()) {
                assert_eq!(role.may(action), mark == 'y', "{role} {action:?}");
            }
            assert_eq!(action.as_str(), format!("{action:?}"));
        }
    }
}
