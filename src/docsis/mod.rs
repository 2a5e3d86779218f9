//! DOCSIS configuration files: TLVs, CM MIC and CMTS MIC, MTA files and their hash.
