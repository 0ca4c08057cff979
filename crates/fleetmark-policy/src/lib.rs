//! Policy: Cedar sets, their schema, checks, slices and decisions; the same code at server and gateway. No I/O, no clock.
//!
//! Two sets count for every question: the installation's and the fleet's. Default deny; forbid wins over permit.
//!
//! - [`request`]: one question, in Fleetmark's words. Never in Cedar's.
//! - [`schema`]: the schema, the default sets, and the names that both sides use.
//! - [`finding`]: what is wrong with a text, and where.
//! - [`limits`]: what a text may not exceed before a recursive parser sees it.
//! - [`set`]: a text that was parsed and checked. The only way to one is [`Set::compile`].
//! - [`needs`]: which parts of a question a policy reads.
//! - [`slice`]: the policies of a set by what they can apply to.
//! - [`question`]: a request as Cedar's request and entities. Never decides.
//! - [`decide`]: asks Cedar about the slices and combines its answers.
//! - [`lockout`]: whether a set leaves the owners a way back.

pub mod decide;
pub mod finding;
mod limits;
pub mod lockout;
mod needs;
mod question;
pub mod request;
pub mod schema;
pub mod set;
mod slice;

pub use decide::{Decision, Policies};
pub use finding::Finding;
pub use lockout::{keeps_an_owner, keeps_an_owner_in};
pub use request::{Act, Context, Principal, Request, Resource};
pub use schema::{DEFAULT_FLEET, DEFAULT_INSTALLATION, SCHEMA};
pub use set::{MAX_POLICIES, MAX_TEXT, Set};
