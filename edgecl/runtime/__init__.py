"""F5: predict on the device, without torch. Importing this loads nothing: what a call needs is loaded when it is made."""
