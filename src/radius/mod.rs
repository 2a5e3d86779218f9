//! RADIUS packets: view, authenticators, dictionary, attributes, records (RFC 2865, 2866, 2869).
