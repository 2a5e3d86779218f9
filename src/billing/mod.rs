//! Calendar, tariffs, rating and lines; late usage and corrections.
