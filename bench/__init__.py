"""What measures: how fast the stack is and against whom (rivals), for how long (endurance), how well it learns."""
