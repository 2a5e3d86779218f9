//! Records of RADIUS accounting become sessions and ledger entries, cut at hours and period edges.
