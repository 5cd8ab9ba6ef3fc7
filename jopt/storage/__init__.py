"""How an array of the state is kept between steps; knows arrays only."""
