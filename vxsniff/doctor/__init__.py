"""Why do I see nothing? What packets say of themselves, and what to do about it. No I/O."""
