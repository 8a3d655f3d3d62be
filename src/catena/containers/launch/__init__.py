"""How a container may be started: launch policies, and the check of a start against one."""
