//! # The map
//!
//! Lastmile is one program, daemon and command line in one. A billing system pushes accounts; Lastmile provisions the
//! modem, the mailbox and the AAA rows; network equipment sends RADIUS accounting; Lastmile turns it into usage per bill
//! cycle, rates it and gives invoice lines back. Five floors; a floor imports only floors below it, and the test
//! `house_rules` keeps it so.
//!
//! ```text
//! ── 4 daemon + cli ── daemon: builds, wires, starts, stops; configuration, log, the system clock
//!                      cli: the commands; one file a group
//! ── 3 services ────── intake: HTTP in, and other ways of billing systems    collector: RADIUS in, and the fold behind it
//!                      provisioner: modems (TFTP, SNMP, DHCP), mailboxes, AAA rows out    biller: closes periods
//!                      nas_control: live sessions changed or ended at their NAS (RFC 5176)
//!                      custodian: seals the audit's chains, lets go of what is older than its retention
//!                      dispatcher: what happened, told to webhooks and people; lines written to files
//!                      (services never import one another; they meet in the store)
//! ── 2 store ───────── the only room that knows SQL; SQLite and PostgreSQL from one text
//!      telemetry ───── counters and heartbeats every service keeps
//!      tls ─────────── certificate files made into a server's settings
//! ── 1 pure rooms ──── account ← provision    account, usage ← billing    usage ← radius
//!                      account, billing ← catalog    account ← mediation
//!                      audit: the chain as values    docsis, dhcp, tftp, outgoing; docsis â account, provision, catalog
//!                      they decide everything and touch nothing: no socket, no SQL, no clock, no randomness
//! ── 0 vocabulary ──── identifiers, addresses, rates, money, instants, secrets
//! ```
//!
//! ## Ten journeys, each read, decide, write
//!
//! - **Account push**: `intake` parses the document (`account`: an account, or every fault) → reads what is stored →
//!   decides (`account::decide`), works out the elements (`provision::elements`) → writes account, holders, sealed
//!   secrets, elements, jobs and audit row in one transaction, many pushes to a commit and to each statement → answers.
//!   Behind it the `provisioner` claims the job, acts through its backend, and records what is really applied. A job is
//!   level-triggered: it brings an element from applied to desired, and the newest desired state wins.
//! - **Foreign record** (request, file, message): `intake::ways` checks who sends → `mediation` reads it by the source's
//!   profile → one deed of the writer: what came is kept sealed, the change is applied to the account as its source said it
//!   last, and goes the way of a push; what cannot is put aside with its reasons → answer in the source's words. A push that
//!   takes too much away waits for an operator (`intake::deeds::guard`), whichever way it came.
//! - **Boot of a modem**: `provisioner::dhcp` receives what a CMTS relays → `dhcp` decides from the table of leases and what
//!   the plant knows of the account → a new lease is written to its journal and synced → answer with the newest file's
//!   name. TFTP builds that file for this CMTS and address. Behind both, leases, offers and fetches go to the store.
//! - **A modem's change**: its job takes one step an attempt (`provision::next_step`): file on offer → reset → awaited →
//!   confirmed by the modem's own word. What was seen stands in the store, so any attempt may be its process' last. A
//!   catalog change waits for the next boot or for a rollout (`provision::decide_rollout`).
//! - **Accounting packet**: `collector` receives → `radius` verifies → `store::journal` appends, COMMIT → answer. Behind
//!   it, in order, the fold: `radius` reads the record, `usage` folds it into its session, and sessions, ledger
//!   entries, totals and the watermark are written in one transaction. Behind that the keeper seals, archives and drops
//!   what the journal holds.
//! - **Import of calls** (CDR): `usage` reads lines of a switch → the store keeps each call once and writes it into the
//!   ledger of whoever held its number.
//! - **Import** (`detail`, `radacct`, SAMIS): `radius` and `docsis` read what was recorded elsewhere → `collector::import`
//!   makes packets of it and appends those that are not known to the journal, on a lane of its own → the same fold.
//! - **Billing run**: `biller` flushes pending usage and fixes watermarks → reads services' history, usage sums and
//!   lines already issued, a chunk of accounts at a time; of periods that an earlier run has settled nothing, unless usage
//!   came late → `billing` rates on two threads → lines are written while the
//!   next chunk is read; the batch becomes visible with its last row, or stays a draft until it is checked and approved.
//!   Accounts that share an allowance under one parent are read at one moment and rated as one.
//! - **Proof**: `collector::fold` folds the journal anew and says which record brought which octets → `billing` computes
//!   each line again from ledger and tariff → both ways meet in one sum a period (`audit verify`), in one line's
//!   explanation and in a dispute pack. `billing::simulate` rates the same facts at other prices.
//! - **Threshold of use**: the fold compares totals with guards and asks for a look in its own transaction → `intake` reads
//!   what the period's use is (`billing::thresholds` decides) → mark, event, hold, elements and jobs in one transaction,
//!   under the account's lock → the provisioner and `nas_control` as behind any push.
//! - **Audit and erasure**: every deed is appended in its own transaction → `custodian::chain` gives it its place and hash
//!   (`audit`), signs the head and tells it to the log → `audit verify` walks the chains. Erasing a person takes it out of
//!   the journal's records first, then out of every row in one transaction; the chain keeps what was committed to, and the
//!   DHCP server lets go of the person's devices behind it (`provisioner::forgetting`).
//! - **Event**: whoever changes something tells it to its transaction (`Tx::tell`), which appends it last and numbers it without
//!   a gap → `dispatcher` claims an outlet, reads on from its place → `outgoing` decides what may be sent now, where to, how
//!   signed, and when again → what became of it is recorded, many to a commit; what failed stands in the outlet's list.
//!
//! ## What always holds
//!
//! 1. An accounting answer is sent only after its record is durable; what is durable is folded exactly once.
//! 2. A session's usage is a function of the set of its distinct reports: any order, any duplicates, same ledger.
//! 3. The ledger is append-only and dense per account; sums over periods equal the session's total, to the octet.
//! 4. Money is rounded once, when a line is made; lines never change; a mistake is answered by a line that names it.
//! 5. The same push again makes no job; an older one never wins.
//! 6. Secrets are sealed at rest and cannot be printed.
//! 7. Whoever changes something, or looks at a person's history, stands in the audit; a deed that was changed afterwards,
//!    taken out or put in between is found.

pub mod account;
pub mod audit;
pub mod biller;
pub mod billing;
pub mod catalog;
pub mod cli;
pub mod collector;
pub mod custodian;
pub mod daemon;
pub mod dhcp;
pub mod dispatcher;
pub mod docsis;
pub mod intake;
pub mod mediation;
pub mod nas_control;
pub mod outgoing;
pub mod provision;
pub mod provisioner;
pub mod radius;
pub mod store;
pub mod telemetry;
pub mod tftp;
pub mod tls;
pub mod usage;
pub mod vocabulary;
