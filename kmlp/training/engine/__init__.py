"""The engines that take training steps, behind one interface."""
