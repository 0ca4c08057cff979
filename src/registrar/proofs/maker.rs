//! By a maker's certificate (IEEE 802.1AR IDevID), which the connection showed.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use fleetmark_domain::{FleetName, Kind, Name, Refusal, Timestamp};
use ring::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{Proven, known_by_name};
use crate::pki::idevid::{IDevId, Makers};
use crate::pki::weak;
use crate::registrar::enroll::EnrollRequest;
use crate::registrar::subjects::new_subject;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::record::{Admission, Holder, Proof};
use crate::store::model::{
    Certificate, Fleet, Group, GroupId, GroupProof, GroupRules, GroupState, ListedSerial, NameMapping, SerialFrom, Subject,
};
use crate::store::rows::Rows;
use crate::store::{StoreError, look_up, read};

/// So many groups are read at once.
const PAGE: u32 = 256;
/// The longest name of a device, in characters.
const MAX_NAME: usize = 63;
/// So many hexadecimal digits of a serial number's hash tell sanitized names apart.
const DIGITS: usize = 8;

/// The attribute that holds the maker's serial number.
const SERIAL: &str = "serial";

/// The authorities of all makers whose groups are enabled, for the handshake.
#[derive(Default)]
pub struct KnownMakers {
    current: ArcSwap<Makers>,
    observer: Mutex<Option<Observer>>,
    /// Held while they are read, so that what was read earlier does not come later.
    reading: tokio::sync::Mutex<()>,
}

/// Who is told of every set of makers.
pub type Observer = Box<dyn Fn(&Arc<Makers>) + Send>;

impl KnownMakers {
    /// Has `observer` told of every set of makers from now on, this one first.
    pub fn observe(&self, observer: Observer) {
        let mut place = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        observer(&self.current.load_full());
        *place = Some(observer);
    }

    fn swap(&self, makers: Makers) {
        let makers = Arc::new(makers);
        let observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        self.current.store(Arc::clone(&makers));
        if let Some(observer) = &*observer {
            observer(&makers);
        }
    }
}

/// What the store knows of a request by a maker's certificate.
struct Standpoint {
    fleet: Fleet,
    groups: Vec<Group>,
    is_blocked: bool,
}

/// What the store knows of the device that it would be.
struct Place {
    serial: Option<String>,
    name: Name,
    known: Option<Subject>,
    existing: Option<Certificate>,
}

impl Registrar {
    /// The makers whose devices the handshake takes.
    pub const fn makers(&self) -> &KnownMakers {
        &self.makers
    }

    /// Reads the makers of all enabled groups again: at the start, after every change of a maker's group, and now and then, since
    /// another process may have changed one. The next handshake goes by them.
    pub async fn refresh_makers(&self) -> Result<()> {
        let _reading = self.makers.reading.lock().await;
        let groups = read(&*self.store, |rows| maker_groups(rows, None)).await?;
        let mut makers = Makers::default();
        for group in groups.iter().filter(|group| group.state == GroupState::Enabled) {
            if let Err(error) = makers.add(&group.material) {
                tracing::error!(fleet = %group.fleet, group = %group.name, %error, "a maker's group lets nobody in");
            }
        }
        self.makers.swap(makers);
        Ok(())
    }

    /// `chain`: DER, the device's own first. The handshake proved that the device holds its key.
    pub(super) async fn prove_by_maker(&self, request: &EnrollRequest, chain: &[Vec<u8>], now: Timestamp) -> Result<Proven> {
        let (own, beside) = chain.split_first().ok_or(Refusal::ProofRequired)?;
        let device = IDevId::parse(own)?;
        let Standpoint { fleet, groups, is_blocked } = self.maker_standpoint(request, &device).await?;
        let groups = trusted(groups, own, beside, now)?;
        // Told to those alone whose certificate a group of the fleet takes.
        if is_blocked {
            let detail = "The key of the maker's certificate is on the block list: this hardware gets no certificate here.";
            return Err(Error::with_detail(Refusal::KeyBlocked, detail));
        }
        // Who can compute the key can be any number of devices.
        weak::check_all(&device.spki, &self.weak_lists)
            .map_err(|refusal| Error::with_detail(refusal, "This is said of the key of the maker's certificate."))?;
        if device.key_hash == request.csr.key_hash() {
            return Err(Refusal::KeyOfMaker.into());
        }
        // Several groups may trust one maker: the oldest that takes the device counts.
        let mut refused = None;
        for group in groups {
            match self.prove_in_group(request, &device, &fleet, group, now).await {
                Err(error) if error.refusal.class() != fleetmark_domain::refusal::Class::Unavailable => {
                    refused.get_or_insert(error);
                }
                decided => return decided,
            }
        }
        Err(refused.unwrap_or_else(|| Refusal::MakerUnknown.into()))
    }

    async fn maker_standpoint(&self, request: &EnrollRequest, device: &IDevId) -> Result<Standpoint> {
        let name = request.fleet.clone().ok_or(Refusal::FleetUnknown)?;
        let (asked, key) = (request.group.clone(), device.key_hash);
        let found = look_up(&*self.store, move |rows| {
            let fleet = rows.fleet(&name)?.ok_or(Refusal::FleetUnknown)?;
            let mut groups = maker_groups(rows, Some(&name))?;
            // One that is not there, or is no maker's, trusts this maker no more than another does.
            groups.retain(|group| asked.as_ref().is_none_or(|asked| asked.folded() == group.name.folded()));
            Ok(Standpoint { fleet, groups, is_blocked: rows.blocked_key(&key)?.is_some() })
        });
        Ok(found.await?)
    }

    async fn prove_in_group(
        &self,
        request: &EnrollRequest,
        device: &IDevId,
        fleet: &Fleet,
        group: Group,
        now: Timestamp,
    ) -> Result<Proven> {
        let Place { serial, name, known, existing } = self.place_in(request, device, &group).await?;
        if existing.is_none() {
            group.rules.terms.admit(&name, request.source, now)?;
        }
        let new = newcomer(&group, name, serial.as_deref(), now);
        let subject = known.unwrap_or_else(|| new.clone());
        let rule = self.profile_of(&subject, Some(fleet))?.reenroll;
        let admission = Admission { group: group.id, proof: GroupProof::Maker, hardware: Some(device.hardware) };
        Ok(Proven {
            subject,
            fleet: Some(fleet.clone()),
            existing,
            holder: Holder::Admitted(Box::new(new), rule),
            proof: Proof::Group(admission),
            token: None,
            approval: group.rules.terms.approval,
            note: match serial {
                Some(serial) => format!("group {}, maker's serial number {serial}", group.name),
                None => format!("group {}", group.name),
            },
            group: Some(group),
        })
    }

    /// Which device it would be by this group.
    async fn place_in(&self, request: &EnrollRequest, device: &IDevId, group: &Group) -> Result<Place> {
        let serial = match group.rules.serial_from {
            SerialFrom::SubjectSerialNumber => device.serial_number.clone(),
            SerialFrom::HardwareModuleName => device.module_serial.clone(),
            SerialFrom::CommonName => device.common_name.clone(),
        };
        let listed = self.listed(group.id, serial.clone()).await?;
        if group.rules.listed_only && listed.is_none() {
            return Err(if serial.is_some() { Refusal::SerialNotListed } else { Refusal::SerialMissing }.into());
        }
        let named = listed.and_then(|listed| listed.device);
        let name = device_name(&group.rules, serial.as_deref(), named, request.name.as_ref())?;
        let (fleet, key, asked) = (group.fleet.clone(), request.csr.key_hash(), name.clone());
        let found = look_up(&*self.store, move |rows| {
            let known = known_by_name(rows, Kind::Device, Some(&fleet), &asked)?;
            Ok((known, rows.certificate_by_key(&key)?))
        });
        let (known, existing) = found.await?;
        Ok(Place { serial, name, known, existing })
    }

    async fn listed(&self, group: GroupId, serial: Option<String>) -> Result<Option<ListedSerial>> {
        let Some(serial) = serial else { return Ok(None) };
        Ok(read(&*self.store, move |rows| rows.listed_serial(group, &serial)).await?)
    }
}

/// The makers' groups of a fleet, or of all, oldest first.
fn maker_groups(rows: &mut dyn Rows, fleet: Option<&FleetName>) -> std::result::Result<Vec<Group>, StoreError> {
    let mut found = Vec::new();
    let mut after = 0;
    loop {
        let page = rows.groups(fleet, after, PAGE)?;
        let is_full = u32::try_from(page.len()).is_ok_and(|count| count >= PAGE);
        match page.last() {
            Some(last) if is_full => after = last.id,
            _ => {
                found.extend(page);
                break;
            }
        }
        found.extend(page);
    }
    found.retain(|group| group.proof == GroupProof::Maker);
    found.sort_by_key(|group| (group.created_at, group.id));
    Ok(found)
}

/// Those that trust the device's maker, as they are now.
///
/// # Errors
/// `MakerUnknown` where none does; `GroupDisabled` where none that does is enabled; `CertificateExpired`,
/// `CertificateNotYetValid` where nothing but the time is against it.
fn trusted(groups: Vec<Group>, own: &[u8], beside: &[Vec<u8>], now: Timestamp) -> std::result::Result<Vec<Group>, Refusal> {
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now.0).unwrap_or(0)));
    let beside: Vec<_> = beside.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let mut refused = Refusal::MakerUnknown;
    let mut found = Vec::new();
    for group in groups {
        let mut makers = Makers::default();
        match makers
            .add(&group.material)
            .map_err(|_| Refusal::CertificateForeign)
            .and_then(|()| makers.verify(own, &beside, at))
        {
            Ok(()) if group.state == GroupState::Enabled => found.push(group),
            Ok(()) => refused = Refusal::GroupDisabled,
            Err(Refusal::CertificateForeign) => {}
            Err(why) if refused == Refusal::MakerUnknown => refused = why,
            Err(_) => {}
        }
    }
    if found.is_empty() { Err(refused) } else { Ok(found) }
}

/// The device that a group makes of a newcomer.
fn newcomer(group: &Group, name: Name, serial: Option<&str>, now: Timestamp) -> Subject {
    let mut attributes = group.rules.attributes.clone();
    if let Some(serial) = serial {
        attributes.entry(SERIAL.to_owned()).or_insert_with(|| serial.to_owned());
    }
    let new = new_subject(Kind::Device, Some(group.fleet.clone()), name, now);
    Subject { attributes, group: Some(group.id), ..new }
}

/// The name under which the device comes in: the list's, else what the mapping makes of its serial number.
fn device_name(rules: &GroupRules, serial: Option<&str>, listed: Option<Name>, asked: Option<&Name>) -> Result<Name> {
    let invalid = |detail: &str| Error::with_detail(Refusal::InvalidName, detail);
    let name = match (listed, rules.mapping) {
        (Some(name), _) => name,
        (None, NameMapping::Requested) => {
            return asked.cloned().ok_or_else(|| invalid("This way in gives no names: say under which name to enroll."));
        }
        (None, NameMapping::Exact) => format!("{}{}", rules.prefix, serial.ok_or(Refusal::SerialMissing)?)
            .parse()
            .map_err(|_| invalid("The maker's serial number is no name; the group may map it."))?,
        (None, NameMapping::Sanitized) => sanitized(&rules.prefix, serial.ok_or(Refusal::SerialMissing)?)
            .parse()
            .map_err(|_| invalid("The group's prefix begins no name."))?,
    };
    match asked {
        Some(asked) if *asked != name => Err(Refusal::NameNotAllowed.into()),
        _ => Ok(name),
    }
}

/// `prefix`, the serial number with each run of other characters as one `-`, and the beginning of its hash. What would be too
/// long is cut before the hash.
fn sanitized(prefix: &str, serial: &str) -> String {
    let mut clean = String::new();
    for c in serial.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            clean.push(c);
        } else if !clean.ends_with('-') {
            clean.push('-');
        }
    }
    let room = MAX_NAME.saturating_sub(prefix.len()).saturating_sub(DIGITS + 1);
    let clean: String = clean.trim_matches(['.', '_', '-']).chars().take(room).collect();
    let clean = clean.trim_end_matches(['.', '_', '-']);
    let hash = hex::encode(digest(&SHA256, serial.as_bytes()));
    let hash = hash.get(..DIGITS).unwrap_or_default();
    if clean.is_empty() { format!("{prefix}{hash}") } else { format!("{prefix}{clean}-{hash}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(mapping: NameMapping, prefix: &str) -> GroupRules {
        GroupRules { mapping, prefix: prefix.to_owned(), ..GroupRules::default() }
    }

    fn name(
        rules: &GroupRules,
        serial: Option<&str>,
        listed: Option<&str>,
        asked: Option<&str>,
    ) -> std::result::Result<String, Refusal> {
        let asked = asked.map(|name| name.parse().unwrap());
        let named = device_name(rules, serial, listed.map(|name| name.parse().unwrap()), asked.as_ref());
        named.map(|name| name.to_string()).map_err(|error| error.refusal)
    }

    #[test]
    fn each_mapping_names_the_device() {
        let exact = rules(NameMapping::Exact, "cam-");
        assert_eq!(name(&exact, Some("A1.7"), None, None).unwrap(), "cam-A1.7");
        assert_eq!(name(&exact, Some("A1.7"), None, Some("cam-A1.7")).unwrap(), "cam-A1.7");
        assert_eq!(name(&exact, Some("A1.7"), None, Some("cam-A1.8")), Err(Refusal::NameNotAllowed));
        assert_eq!(name(&exact, Some("A1 7"), None, None), Err(Refusal::InvalidName));
        assert_eq!(name(&exact, None, None, Some("x")), Err(Refusal::SerialMissing));
        assert_eq!(name(&exact, Some("A1 7"), Some("hall"), None).unwrap(), "hall");
        assert_eq!(name(&exact, Some("A1 7"), Some("hall"), Some("cellar")), Err(Refusal::NameNotAllowed));

        let requested = rules(NameMapping::Requested, "");
        assert_eq!(name(&requested, None, None, Some("hall")).unwrap(), "hall");
        assert_eq!(name(&requested, Some("1"), None, None), Err(Refusal::InvalidName));
        assert_eq!(name(&requested, Some("1"), Some("hall"), Some("cellar")), Err(Refusal::NameNotAllowed));
    }

    #[test]
    fn a_sanitized_name_is_always_a_name_and_never_that_of_another_serial_number() {
        let long = "x".repeat(128);
        let serials = ["SN 17/4", "SN-17-4", "sn 17/4", "--", "", "\u{e4}\u{f6}", "a", &long, " lead", "trail. "];
        let mut seen = std::collections::HashSet::new();
        for prefix in ["", "cam-", &"p".repeat(54), &"p".repeat(55)] {
            for serial in serials {
                let name: Name = sanitized(prefix, serial).parse().unwrap_or_else(|_| panic!("{prefix} {serial}"));
                assert!(seen.insert(name.folded()), "{name}");
            }
        }
        // printf 'SN 17/4' | sha256sum
        assert_eq!(sanitized("cam-", "SN 17/4"), "cam-SN-17-4-b00a4ce7");
    }
}
