"""How far the explanations of Sec. 5.4 are right, measured over all users."""
